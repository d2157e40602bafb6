"""The shipped demo model: reproducible expansion, loading by other programs, pictures that match their prompts."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from kit import demo_pipeline
from kit.demo_pixels import look
from safetensors import safe_open

from atelier.demo import asset, clip, expand
from atelier.demo.drawing import held_out_prompts
from atelier.errors import AtelierError
from atelier.models.open import open_model
from atelier.progress import Interrupted, Progress
from atelier.train.devices import pick_dtype

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline
    from kit.host import Host

PROMPTS = held_out_prompts(32)[::2]
"""Each colour, shape and background at least once: in float32 on one core these take minutes."""
HOSTS = 1
"""Number of them that are also generated in the host, which computes in float32: seconds for each."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return expand.expand(tmp_path_factory.mktemp("démo model") / expand.FILE_NAME)


def test_what_is_stored_is_small() -> None:
    stored = sum(path.stat().st_size for path in Path(expand.ASSET).parent.iterdir() if path.is_file())
    assert stored <= 20e6


def test_expansion_has_the_hash_of_the_repository(checkpoint: Path) -> None:
    with checkpoint.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256") if hasattr(hashlib, "file_digest") else hashlib.sha256(file.read())
    assert digest.hexdigest() == expand.DIGEST.read_text().strip()


def test_an_expanded_file_is_left_as_it_is(checkpoint: Path) -> None:
    before = checkpoint.stat().st_mtime_ns
    assert expand.expand(checkpoint) == checkpoint
    assert checkpoint.stat().st_mtime_ns == before


def test_the_pack_opens_it_as_stable_diffusion_1(checkpoint: Path) -> None:
    model = open_model(checkpoint)
    assert (model.family, model.prediction_type, model.dtype) == ("sd1", "epsilon", "float16")


def test_every_number_is_finite(checkpoint: Path) -> None:
    with safe_open(str(checkpoint), "pt") as file:
        names = list(file.keys())
        assert len(names) > 600
        assert all(bool(file.get_tensor(name).isfinite().all()) for name in names)


def test_interrupted_expansion_leaves_nothing(tmp_path: Path) -> None:
    class Impatient(Progress):
        def advance(self, done: int, text: str = "") -> None:
            if done == 3:
                raise Interrupted

    with pytest.raises(Interrupted):
        expand.expand(tmp_path / "model.safetensors", Impatient())
    assert not list(tmp_path.iterdir())


def test_another_result_than_the_repositorys_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other.sha256"
    other.write_text("0" * 64)
    monkeypatch.setattr(clip, "DIGEST", other)
    with pytest.raises(AtelierError, match="instead of 000000000000"):
        clip.expand_clip(tmp_path / "clip")
    assert list(tmp_path.iterdir()) == [other]


def test_a_damaged_asset_is_named(tmp_path: Path) -> None:
    damaged = tmp_path / "model.safetensors"
    damaged.write_bytes(expand.ASSET.read_bytes()[:1000])
    with pytest.raises(AtelierError, match=r"model\.safetensors, a part of the demo model, cannot be read"):
        asset.read(damaged)


@pytest.fixture
def pipeline(checkpoint: Path, tmp_path: Path) -> StableDiffusionPipeline:
    return demo_pipeline.load(checkpoint, tmp_path / "configurations")


def right(pictures: list[np.ndarray]) -> dict[str, float]:
    """Share of pictures with the prompt's shape, colour and background."""
    pairs = [(look(picture), spec) for picture, (spec, _) in zip(pictures, PROMPTS, strict=False)]
    return {field: sum(getattr(seen, field) == getattr(spec, field) for seen, spec in pairs) / len(pairs)
            for field in ("color", "background", "shape")}


@pytest.mark.slow
def test_held_out_prompts_are_drawn_right(pipeline: StableDiffusionPipeline) -> None:
    # In bfloat16 where the processor computes in it, which is several times faster.
    pipeline.to(pick_dtype("auto", torch.device("cpu")))
    found = right(demo_pipeline.sample(pipeline, [words for _, words in PROMPTS]))
    assert found["color"] >= 0.97, found
    assert found["background"] >= 0.97, found
    assert found["shape"] >= 0.90, found


@pytest.mark.host
@pytest.mark.slow
def test_the_hosts_sampler_draws_the_same(checkpoint: Path, pipeline: StableDiffusionPipeline, host: Host) -> None:
    drawn = demo_pipeline.sample(pipeline, [words for _, words in PROMPTS[:HOSTS]])
    models = host.base / "models" / "checkpoints"
    models.mkdir(parents=True, exist_ok=True)
    expand.expand(models / expand.FILE_NAME)
    graph: dict[str, Any] = {
        "model": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": expand.FILE_NAME}},
        "empty": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["model", 1]}},
        "latent": {"class_type": "EmptyLatentImage", "inputs": {"width": 128, "height": 128, "batch_size": 1}},
    }
    for i, (_, words) in enumerate(PROMPTS[:HOSTS]):
        graph[f"text{i}"] = {"class_type": "CLIPTextEncode", "inputs": {"text": words, "clip": ["model", 1]}}
        graph[f"sample{i}"] = {"class_type": "KSampler", "inputs": {
            "model": ["model", 0], "positive": [f"text{i}", 0], "negative": ["empty", 0], "latent_image": ["latent", 0],
            "seed": i, "steps": demo_pipeline.STEPS, "cfg": demo_pipeline.GUIDANCE, "sampler_name": "euler",
            "scheduler": "normal", "denoise": 1.0}}
        graph[f"picture{i}"] = {"class_type": "VAEDecode",
                                "inputs": {"samples": [f"sample{i}", 0], "vae": ["model", 2]}}
        graph[f"show{i}"] = {"class_type": "PreviewImage", "inputs": {"images": [f"picture{i}", 0]}}
    result = host.queue(graph)
    assert result.status == "success", result.error
    pictures = [result.pictures(f"show{i}")[0] for i in range(HOSTS)]
    assert np.mean([np.abs(a.astype(int) - b).mean() for a, b in zip(pictures, drawn, strict=True)]) < 3
    here, there = right(pictures), right(drawn)
    assert all(abs(here[field] - there[field]) <= 0.05 for field in here), (here, there)
