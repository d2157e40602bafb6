"""Damaged files of every kind are read or refused with a clear error, within seconds and within memory."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from kit.damaged_files import Reader, Target, reader, try_damages, write_targets

COUNT = 300


@pytest.fixture(scope="module")
def read() -> Iterator[Reader]:
    with reader() as made:
        yield made


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> list[Target]:
    return write_targets(tmp_path_factory.mktemp("damaged"))


@pytest.mark.slow
def test_other_damage_in_every_run(tmp_path: Path, read: Reader) -> None:
    """`python tests/kit/damaged_files.py --seed N` tries the same again."""
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    outcomes = list(try_damages(tmp_path, seed, COUNT, read))
    fallen = [str(outcome) for outcome in outcomes if outcome.how == "fell"]
    assert not fallen, f"seed {seed}: {fallen}"
    counts = Counter(outcome.how for outcome in outcomes)
    # Damage that nobody notices tries nothing, and damage that makes garbage of everything little.
    assert counts["refused"] > COUNT / 3
    assert counts["read"] > COUNT / 20


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["checkpoint", "pickle", "folder", "index", "peft", "lora", "train file",
                                  "example set", "picture", "manifest"])
def test_each_reader_reads_or_refuses(kind: str, targets: list[Target], read: Reader) -> None:
    """The same by Hypothesis, which finds the smallest damage that falls."""
    own = [target for target in targets if target.kind == kind]

    @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck),
              phases=(Phase.explicit, Phase.generate, Phase.shrink))
    @given(st.sampled_from(own), st.integers(0, 3), st.randoms(use_true_random=False))
    def one(target: Target, way: int, rng) -> None:
        original = target.file.read_bytes()
        try:
            target.file.write_bytes(target.damage[way % len(target.damage)](rng, original))
            how, error = read.read(target.kind, target.read)
        finally:
            target.file.write_bytes(original)
        assert how != "fell", error

    one()


def test_an_infotext_costs_no_more_than_its_length(tmp_path: Path, read: Reader) -> None:
    """Each value that looks like JSON once had everything before it looked at again."""
    from kit.found_prompts import png

    path = png(tmp_path / "a.png", parameters="a cat\nSteps: 20, Seed: 5" + ", a: {" * 600_000)
    assert read.read("picture", path) == ("read", "")


def test_a_node_of_many_links_costs_no_more_than_their_number(tmp_path: Path, read: Reader) -> None:
    import json

    from kit.found_prompts import node, png

    many = {f"model{n}": ["1", n] for n in range(700_000)}
    graph = {"1": node("X", **many), "2": node("KSampler", model=["1", 0], positive=["1", 0], negative=["1", 1], seed=5,
                                               steps=20, latent_image=["1", 2])}
    path = png(tmp_path / "a.png", prompt=json.dumps(graph))
    assert read.read("picture", path)[0] in ("read", "refused")


def test_a_sparse_file_of_eight_gigabytes_is_refused_unread(tmp_path: Path, read: Reader) -> None:
    from kit.found_prompts import png

    for kind, path in (("picture", png(tmp_path / "a.png", parameters="a cat\nSteps: 20, Seed: 5")),
                       ("train file", tmp_path / "t.toml"), ("example set", tmp_path / "e.toml")):
        with path.open("ab") as file:
            file.truncate(8 * 2**30)
        how, error = read.read(kind, path)
        assert how == "refused" and "it has more than" in error, error


def test_many_empty_tensors_are_refused(tmp_path: Path, read: Reader) -> None:
    import json

    header = json.dumps({f"model.diffusion_model.{n}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
                         for n in range(200_000)}).encode()
    path = tmp_path / "m.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    how, error = read.read("checkpoint", path)
    assert how == "refused" and "200000 tensors" in error


@pytest.mark.parametrize(("pattern", "said"), [("(a+)+$" * 20, None), ("((a*)*)*b", None), ("a{1,999999999}", "{"),
                                               ("(" * 90 + ")" * 90, "nested"), ("x" * 100_000, None), ("(?=a)b", "?")])
def test_a_stranger_s_pattern_costs_no_more_than_its_length(pattern: str, said: str | None, tmp_path: Path,
                                                            read: Reader) -> None:
    """A backtracking engine takes longer than the universe is old for the first two."""
    import json

    import torch
    from safetensors.torch import save_file

    layer = "base_model.model." + "a" * 3000
    save_file({f"{layer}.lora_A.weight": torch.ones(2, 8), f"{layer}.lora_B.weight": torch.ones(8, 2)},
              tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps(
        {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "alpha_pattern": {pattern: 2}}))
    how, error = read.read("peft", tmp_path)
    assert how in ("read", "refused")
    if said:
        assert "alpha_pattern" in error and said in error


def test_layers_are_counted_not_numbered(tmp_path: Path, read: Reader) -> None:
    """One tensor of a text encoder that calls itself layer 999 999 999 once made as many layers."""
    import json

    from kit.checkpoints import write_sd1

    path = write_sd1(tmp_path / "m.safetensors", "tiny")
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    names = json.loads(data[8:end])
    renamed = {name.replace("layers.1.mlp.fc1.bias", "layers.999999999.mlp.fc1.bias"): v for name, v in names.items()}
    assert names.keys() != renamed.keys()
    header = json.dumps(renamed).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data[end:])
    assert read.read("checkpoint", path)[0] == "refused"
