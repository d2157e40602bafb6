"""Resizing, merging, extracting and inspecting LoRAs, against numpy's singular values and sums of whole matrices."""

from __future__ import annotations

import json
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kit.checkpoints import write_sd1, write_sd2
from kit.loras import layers, random_lora, tiny_models
from safetensors.torch import load_file, save_file

from atelier.errors import AtelierError
from atelier.lora.combine import combine_loras
from atelier.lora.extract import extract_lora
from atelier.lora.file import load_lora, read_metadata, save_lora
from atelier.lora.inspect import inspect_lora, is_lora
from atelier.lora.low_rank import largest_factors
from atelier.lora.resize import resize_lora
from atelier.lora.weights import LoraModule
from atelier.lora.written import WrittenAs
from atelier.models.layout import read_layout
from atelier.models.lazy_tensor import LazyTensor
from atelier.progress import Interrupted, Progress


def some_lora(part: str = "attn", **values: Any) -> dict[str, LoraModule]:
    """An adapter for the layers of a tiny UNet with `part` in their names: linear ones, or convolutions."""
    found = {name: layer for name, layer in layers("unet", tiny_models("sd1")["unet"]).items() if part in name}
    assert found
    return random_lora(found, **values)


def matrix(module: LoraModule) -> np.ndarray:
    """(alpha / r) · B · A in float64, [out, in · k · k], as numpy multiplies it."""
    up, down = (tensor.double().flatten(1).numpy() for tensor in (module.up, module.down))
    return up @ down * (module.alpha / len(down))


def matrices(weights: Mapping[str, LoraModule]) -> dict[str, np.ndarray]:
    return {name: matrix(module) for name, module in weights.items()}


def nearest(whole: np.ndarray, rank: int) -> np.ndarray:
    """The nearest matrix of that rank, by numpy."""
    u, s, v = np.linalg.svd(whole, full_matrices=False)
    return u[:, :rank] * s[:rank] @ v[:rank]


def assert_close(found: np.ndarray, wanted: np.ndarray, tolerance: float = 1e-6) -> None:
    assert np.linalg.norm(found - wanted) <= tolerance * np.linalg.norm(wanted)


# Resizing -------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("part", ["attn", "conv"])
def test_a_smaller_rank_is_the_nearest_there_is(part: str, tmp_path: Path) -> None:
    weights = some_lora(part, rank=6, alpha=3.0)
    before = matrices(weights)
    report = resize_lora(save_lora(tmp_path / "a.safetensors", weights), tmp_path / "b.safetensors", rank=2)
    after = load_lora(tmp_path / "b.safetensors")
    assert after.keys() == weights.keys()
    lost = whole = 0.0
    for name, module in after.items():
        assert module.rank == 2 and module.down.shape[1:] == weights[name].down.shape[1:]
        assert_close(matrix(module), nearest(before[name], 2))
        values = np.linalg.svd(before[name], compute_uv=False)
        lost, whole = lost + (values[2:] ** 2).sum(), whole + (values ** 2).sum()
    assert report.error == pytest.approx((lost / whole) ** 0.5, rel=1e-6)
    assert (report.ranks_before, report.ranks_after) == ("6", "2")
    assert report.numbers_after * 3 == report.numbers_before


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_a_share_of_the_squares_is_kept_in_each_layer_with_the_fewest_ranks(share: float, tmp_path: Path) -> None:
    weights = some_lora(rank=8)
    resize_lora(save_lora(tmp_path / "a.safetensors", weights), tmp_path / "b.safetensors", share=share)
    ranks = set()
    for name, module in load_lora(tmp_path / "b.safetensors").items():
        squares = np.linalg.svd(matrix(weights[name]), compute_uv=False)[:8] ** 2
        kept = np.cumsum(squares) / squares.sum()
        assert module.rank == int(np.argmax(kept >= share)) + 1
        ranks.add(module.rank)
    assert len(ranks) > 1 or share == 0.999


def test_the_whole_rank_and_share_lose_nothing(tmp_path: Path) -> None:
    weights = some_lora(rank=4, alpha=-2.0)
    report = resize_lora(save_lora(tmp_path / "a.safetensors", weights), tmp_path / "b.safetensors", rank=9)
    assert report.error < 1e-7 and report.ranks_after == "4"
    for name, module in load_lora(tmp_path / "b.safetensors").items():
        assert_close(matrix(module), matrix(weights[name]))


def test_a_resized_file_is_of_the_asked_type_and_says_what_it_is(tmp_path: Path) -> None:
    header = {"ss_sd_model_name": "base", "ss_network_dim": "4", "sshs_model_hash": "0", "modelspec.title": "fox"}
    source = save_lora(tmp_path / "a.safetensors", some_lora(rank=4), metadata=header)
    resize_lora(source, tmp_path / "b.safetensors", rank=2, written=WrittenAs("kohya", "bf16"))
    assert {tensor.dtype for key, tensor in load_file(tmp_path / "b.safetensors").items()
            if not key.endswith(".alpha")} == {torch.bfloat16}
    written = read_metadata(tmp_path / "b.safetensors")
    assert (written["ss_network_dim"], written["ss_sd_model_name"], written["modelspec.title"]) == ("2", "base", "fox")
    assert json.loads(written["atelier.made_by"])["source"] == "a.safetensors"
    assert "sshs_model_hash" not in written


@pytest.mark.parametrize(("values", "said"), [
    ({"rank": -1}, "rank is -1"), ({"share": 0.0}, r"share is 0\.0"), ({"share": 1.5}, r"share is 1\.5"),
    ({"share": float("nan")}, "share is nan")])
def test_values_out_of_range_are_refused_before_anything_is_read(values: dict[str, Any], said: str, tmp_path: Path
                                                                 ) -> None:
    with pytest.raises(AtelierError, match=said):
        resize_lora(tmp_path / "gone.safetensors", tmp_path / "b.safetensors", **values)


def test_layers_that_change_nothing_are_left_out_and_counted(tmp_path: Path) -> None:
    weights = some_lora(rank=4)
    name, idle = next(iter(weights.items()))
    source = save_lora(tmp_path / "a.safetensors",
                       {**weights, name: LoraModule(idle.down, torch.zeros_like(idle.up), idle.alpha)})
    report = resize_lora(source, tmp_path / "b.safetensors", rank=2)
    assert load_lora(tmp_path / "b.safetensors").keys() == weights.keys() - {name}
    assert report.idle == 1 and "1 layers that change nothing were left out" in report.text()


def test_changes_of_norms_alone_have_no_rank(tmp_path: Path) -> None:
    save_file({"lora_unet_conv_norm_out.w_norm": torch.ones(8)}, tmp_path / "a.safetensors")
    report = resize_lora(tmp_path / "a.safetensors", tmp_path / "b.safetensors", rank=1)
    assert (report.ranks_before, report.ranks_after, report.error) == ("none", "none", 0.0)
    assert torch.equal(load_file(tmp_path / "b.safetensors")["lora_unet_conv_norm_out.w_norm"], torch.ones(8))


def test_a_dora_is_neither_resized_nor_merged(tmp_path: Path) -> None:
    dora = save_lora(tmp_path / "dora.safetensors", some_lora(dora=True))
    plain = save_lora(tmp_path / "plain.safetensors", some_lora())
    with pytest.raises(AtelierError, match=r"dora\.safetensors is a DoRA, .* cannot be resized"):
        resize_lora(dora, tmp_path / "b.safetensors", rank=2)
    with pytest.raises(AtelierError, match="is a DoRA"):
        combine_loras([(plain, 1), (dora, 1)], tmp_path / "b.safetensors")
    assert not (tmp_path / "b.safetensors").exists()


# Merging --------------------------------------------------------------------------------------------------------------

def test_a_merge_is_the_sum_of_the_changes(tmp_path: Path) -> None:
    """Ranks and alphas differ, one LoRA has layers that the other lacks, and one is taken away."""
    parts = [(some_lora("attn", rank=4, alpha=2.0), 0.7), (some_lora("attn1", rank=3, alpha=6.0, seed=1), -1.5),
             (some_lora("conv", rank=2, seed=2), 1.0)]
    sources = [(save_lora(tmp_path / f"{number}.safetensors", weights), strength)
               for number, (weights, strength) in enumerate(parts)]
    report = combine_loras(sources, tmp_path / "all.safetensors")
    found = load_lora(tmp_path / "all.safetensors")
    assert found.keys() == {name for weights, _ in parts for name in weights}
    for name, module in found.items():
        assert_close(matrix(module), sum(strength * matrix(weights[name]) for weights, strength in parts
                                         if name in weights))
        assert module.rank == sum(weights[name].rank for weights, _ in parts if name in weights)
    assert report.error == 0 and report.shared == len(parts[1][0]) and "exact" in report.text()
    made_by = json.loads(read_metadata(tmp_path / "all.safetensors")["atelier.made_by"])
    assert made_by["sources"] == [["0.safetensors", 0.7], ["1.safetensors", -1.5], ["2.safetensors", 1.0]]


def test_a_merge_is_cut_to_a_rank(tmp_path: Path) -> None:
    parts = [some_lora(rank=4), some_lora(rank=4, seed=1)]
    sources = [(save_lora(tmp_path / f"{number}.safetensors", weights), 1.0) for number, weights in enumerate(parts)]
    report = combine_loras(sources, tmp_path / "all.safetensors", rank=3)
    for name, module in load_lora(tmp_path / "all.safetensors").items():
        assert_close(matrix(module), nearest(matrix(parts[0][name]) + matrix(parts[1][name]), 3))
    assert 0 < report.error < 1 and report.ranks == "3"


@pytest.mark.parametrize("rank", [3, 4])
def test_what_a_merge_loses_is_a_share_of_all_layers(rank: int, tmp_path: Path) -> None:
    """Of those, too, that have no more ranks than asked for."""
    parts = [some_lora(rank=2) | some_lora("conv", rank=3, size=0.05), some_lora(rank=2, seed=1)]
    sources = [(save_lora(tmp_path / f"{number}.safetensors", weights), 1.0) for number, weights in enumerate(parts)]
    report = combine_loras(sources, tmp_path / "all.safetensors", rank=rank)
    sums = {name: sum(matrix(weights[name]) for weights in parts if name in weights) for name in parts[0]}
    squares = {name: np.linalg.svd(whole, compute_uv=False) ** 2 for name, whole in sums.items()}
    lost = sum(values[rank:].sum() for values in squares.values()) if rank == 3 else 0.0
    assert report.error == pytest.approx((lost / sum(values.sum() for values in squares.values())) ** 0.5, rel=1e-5)
    for name, module in load_lora(tmp_path / "all.safetensors").items():
        assert module.rank == (rank if name in parts[1] else 3)


def test_a_pointwise_convolution_and_a_linear_layer_are_added(tmp_path: Path) -> None:
    name = "unet.down_blocks.0.attentions.0.proj_in"
    linear = LoraModule(torch.randn(2, 8), torch.randn(8, 2), 2.0)
    pointwise = LoraModule(torch.randn(3, 8, 1, 1), torch.randn(8, 3, 1, 1), 3.0)
    for first, second in ((linear, pointwise), (pointwise, linear)):
        sources = [(save_lora(tmp_path / f"{number}.safetensors", {name: module}), 1.0)
                   for number, module in enumerate((first, second))]
        combine_loras(sources, tmp_path / "all.safetensors")
        found = load_lora(tmp_path / "all.safetensors")[name]
        assert found.down.shape[1:] == first.down.shape[1:]
        assert_close(matrix(found), matrix(first) + matrix(second))


def test_what_cannot_be_merged_is_told(tmp_path: Path) -> None:
    one = save_lora(tmp_path / "one.safetensors", some_lora())
    name = next(iter(some_lora()))
    wide = save_lora(tmp_path / "wide.safetensors", {name: LoraModule(torch.ones(2, 99), torch.ones(8, 2), 2.0)})
    with pytest.raises(AtelierError, match="different models"):
        combine_loras([(one, 1), (wide, 1)], tmp_path / "all.safetensors")
    with pytest.raises(AtelierError, match="There are 1 LoRAs with a strength"):
        combine_loras([(one, 1), (wide, 0)], tmp_path / "all.safetensors")
    with pytest.raises(AtelierError, match="overlaps"):
        combine_loras([(one, 1), (wide, 1)], one)
    with pytest.raises(AtelierError, match="rank is -1"):
        combine_loras([(one, 1), (wide, 1)], tmp_path / "all.safetensors", rank=-1)
    assert not (tmp_path / "all.safetensors").exists()


# Extracting -----------------------------------------------------------------------------------------------------------

def changed(base: Path, path: Path, change: Mapping[str, torch.Tensor]) -> Path:
    """A copy of a checkpoint, in float32, with these tensors added to those whose names end so."""
    state = {key: tensor.float() for key, tensor in load_file(base).items()}
    for ending, tensor in change.items():
        key, = (key for key in state if key.endswith(ending))
        state[key] = state[key] + tensor.reshape(state[key].shape)
    save_file(state, path)
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sd1(tmp_path_factory.mktemp("base") / "base.safetensors", "tiny", dtype="float32")


def wide(base: Path, layer: str) -> torch.Tensor:
    """A change of full rank for that tensor, with singular values that fall."""
    shape = read_layout(base).unet.tensors[layer].shape
    rows, columns = shape[0], int(np.prod(shape[1:]))
    u, _, v = np.linalg.svd(np.random.default_rng(0).normal(size=(rows, columns)), full_matrices=False)
    return torch.from_numpy(u * 0.8 ** np.arange(min(rows, columns)) @ v).float().reshape(shape)


LINEAR, CONV = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", "down_blocks.0.resnets.0.conv1"
STORED = {LINEAR: "input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight",
          CONV: "input_blocks.1.0.in_layers.2.weight"}
"""Their names in a checkpoint."""


def test_what_is_extracted_is_nearest_to_the_difference(base: Path, tmp_path: Path) -> None:
    differences = {layer: wide(base, f"{layer}.weight") for layer in (LINEAR, CONV)}
    tuned = changed(base, tmp_path / "tuned.safetensors",
                    {STORED[layer]: change for layer, change in differences.items()})
    report = extract_lora(tuned, base, tmp_path / "lora.safetensors", rank=3)
    found = load_lora(tmp_path / "lora.safetensors")
    assert found.keys() == {f"unet.{layer}" for layer in differences}
    lost = whole = 0.0
    for layer, change in differences.items():
        flat = change.double().flatten(1).numpy()
        assert_close(matrix(found[f"unet.{layer}"]), nearest(flat, 3), 1e-4)  # the checkpoint itself is in float32
        values = np.linalg.svd(flat, compute_uv=False)
        lost, whole = lost + (values[3:] ** 2).sum(), whole + (values ** 2).sum()
    assert report.error == pytest.approx((lost / whole) ** 0.5, rel=1e-4)
    assert report.layers == {"unet": 2} and report.unchanged > 10 and report.other == 0
    assert load_lora(tmp_path / "lora.safetensors")[f"unet.{CONV}"].down.dim() == 4


def test_a_merged_lora_is_found_again(base: Path, tmp_path: Path) -> None:
    """And no more ranks than it had, where a share of its squares is asked for."""
    layer = read_layout(base).unet.tensors[f"{LINEAR}.weight"]
    merged = LoraModule(torch.randn(2, layer.shape[1]) * 0.1, torch.randn(layer.shape[0], 2) * 0.1, 2.0)
    tuned = changed(base, tmp_path / "tuned.safetensors", {STORED[LINEAR]: torch.from_numpy(matrix(merged)).float()})
    report = extract_lora(tuned, base, tmp_path / "lora.safetensors", rank=16, share=0.99999)
    found = load_lora(tmp_path / "lora.safetensors")[f"unet.{LINEAR}"]
    assert found.rank == 2 and report.error < 1e-2
    assert_close(matrix(found), matrix(merged), 1e-4)


def test_what_a_lora_cannot_hold_is_counted(base: Path, tmp_path: Path) -> None:
    layout = read_layout(base)
    bias = layout.unet.tensors[f"{CONV}.bias"].shape
    tuned = changed(base, tmp_path / "tuned.safetensors", {
        STORED[LINEAR]: wide(base, f"{LINEAR}.weight"), STORED[CONV].replace("weight", "bias"): torch.ones(bias)})
    report = extract_lora(tuned, base, tmp_path / "lora.safetensors", rank=4)
    assert report.other == 1 and "1 other tensors differ" in report.text()


def test_models_that_do_not_belong_together_are_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(AtelierError, match="No layer that a LoRA holds differs"):
        extract_lora(base, base, tmp_path / "lora.safetensors")
    other = write_sd2(tmp_path / "sd2.safetensors", "tiny")
    with pytest.raises(AtelierError, match=r"is Stable Diffusion 2\.x and base\.safetensors is"):
        extract_lora(other, base, tmp_path / "lora.safetensors")
    assert not (tmp_path / "lora.safetensors").exists()


def test_tensors_are_read_a_pair_at_a_time(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned = changed(base, tmp_path / "tuned.safetensors", {STORED[LINEAR]: wide(base, f"{LINEAR}.weight")})
    alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    most: list[int] = []
    read = LazyTensor.read

    def watched(tensor: LazyTensor) -> torch.Tensor:
        value = read(tensor)
        alive.add(value)
        most.append(len(alive))
        return value

    monkeypatch.setattr(LazyTensor, "read", watched)
    extract_lora(tuned, base, tmp_path / "lora.safetensors", rank=2)
    assert len(most) > 20 and max(most) <= 2


class Stop(Progress):
    """Interrupts at the third layer."""

    done = 0

    def check(self) -> None:
        self.done += 1
        if self.done == 3:
            raise Interrupted


def test_each_tool_can_be_interrupted_and_leaves_nothing(base: Path, tmp_path: Path) -> None:
    one, two = (save_lora(tmp_path / f"{seed}.safetensors", some_lora(seed=seed)) for seed in (0, 1))
    out = tmp_path / "out" / "lora.safetensors"
    tuned = changed(base, tmp_path / "tuned.safetensors", {STORED[LINEAR]: wide(base, f"{LINEAR}.weight")})
    for tool in (lambda: resize_lora(one, out, rank=2, progress=Stop()),
                 lambda: combine_loras([(one, 1), (two, 1)], out, progress=Stop()),
                 lambda: extract_lora(tuned, base, out, progress=Stop())):
        with pytest.raises(Interrupted):
            tool()
    assert not out.exists()


@pytest.mark.parametrize("shape", [(7, 30), (30, 7), (12, 12)])
def test_the_largest_singular_values_are_numpys(shape: tuple[int, int]) -> None:
    whole = np.random.default_rng(1).normal(size=shape)
    found = largest_factors(torch.from_numpy(whole), 5)
    assert found.values.numpy() == pytest.approx(np.linalg.svd(whole, compute_uv=False)[:5], rel=1e-9)
    assert_close((found.left * found.values @ found.right).numpy(), nearest(whole, 5), 1e-8)


# Inspecting -----------------------------------------------------------------------------------------------------------

def test_an_inspection_tells_layers_norms_words_and_settings(tmp_path: Path) -> None:
    tags = {"10_fox": {"a fox": 12, "snow": 3}, "more": {"snow": 4}}
    header = {"modelspec.trigger_phrase": "ohwx", "ss_tag_frequency": json.dumps(tags), "ss_unet_lr": "0.0001",
              "ss_steps": "1200", "ss_num_epochs": "None"}
    weights = some_lora("attn", rank=4) | some_lora("conv1", rank=2)
    path = save_lora(tmp_path / "fox.safetensors", weights, metadata=header, dtype=torch.float16)
    found = inspect_lora(path)
    stored = load_lora(path)
    for layer in found.layers:
        assert layer.norm == pytest.approx(np.linalg.norm(matrix(stored[layer.name])), rel=1e-6)
    assert (found.trigger, found.tags[:2], found.dtype) == ("ohwx", (("a fox", 12), ("snow", 7)), "float16")
    assert found.settings == {"learning rate": "0.0001", "steps": "1200"}
    assert sum(found.parts.values()) == len(weights) and found.parts["unet, convolutions"] == 8
    text = found.text()
    assert text.startswith("fox.safetensors: LoRA of rank 2 to 4, float16\n")
    assert "trigger: ohwx" in text and "snow (7)" in text
    assert json.loads(json.dumps(found.as_dict()))["layers"][0]["rank"] in (2, 4)


def test_a_dora_is_called_so(tmp_path: Path) -> None:
    found = inspect_lora(save_lora(tmp_path / "fox.safetensors", some_lora(rank=4, dora=True)))
    assert found.dora and found.text().startswith("fox.safetensors: DoRA of rank 4, float32\n")


def test_no_norm_is_told_of_changes_that_depend_on_the_model(tmp_path: Path) -> None:
    stem = "lora_unet_mid_block_resnets_0_conv1"
    save_file({f"{stem}.weight": torch.ones(6), f"{stem}.on_input": torch.tensor(True)}, tmp_path / "a.safetensors")
    report = inspect_lora(tmp_path / "a.safetensors")
    assert report.layers[0].norm is None
    assert report.text() == "a.safetensors: IA3, float32\nunet, convolutions: 1 layers"


@pytest.mark.parametrize("tags", ["[1]", "nonsense", '{"a": 3}', '{"a": {"b": "c"}}', "[" * 99999])
def test_other_peoples_headers_do_no_harm(tags: str, tmp_path: Path) -> None:
    path = save_lora(tmp_path / "fox.safetensors", some_lora(), metadata={"ss_tag_frequency": tags})
    assert inspect_lora(path).tags == ()


def test_a_lora_is_told_from_a_model(base: Path, tmp_path: Path) -> None:
    assert is_lora(save_lora(tmp_path / "a.safetensors", some_lora()))
    assert is_lora(save_lora(tmp_path / "folder", some_lora(), format="peft"))
    assert not is_lora(base)
