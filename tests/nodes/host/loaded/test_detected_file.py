"""A file of the published width, which the host's own detection goes by: loaded, trained, its LoRA's names known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from kit.host_families import open_patcher
from kit.one_block_anima import CONFIG, one_layer_for_text, write_anima
from kit.quantized_files import load_file_in_host
from safetensors.torch import load_file

pytestmark = pytest.mark.host


@pytest.fixture(autouse=True)
def _small() -> Iterator[None]:
    with one_layer_for_text():
        yield


def test_anima_is_known_by_its_file(pack: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import comfy.sd

    with torch.inference_mode():
        patcher = load_file_in_host(write_anima(tmp_path / "anima.ckpt"))
    assert type(patcher.model).__name__ == "Anima"
    assert patcher.model.diffusion_model.blocks[0].mlp.layer1.weight.shape[1] == CONFIG["model_channels"]
    opened = open_patcher(pack, patcher, tmp_path, CONFIG["crossattn_emb_channels"])
    request = opened.request(rank=1, alpha=1)
    denoiser = opened.denoiser(request, torch.bfloat16)
    adapters = opened.adapters(denoiser, request)
    clean = torch.randn(1, *opened.latents, generator=torch.Generator().manual_seed(1))
    sigma = torch.tensor([0.5])
    objective = denoiser.objective(request.loss, request.levels)
    prediction = denoiser.predict(denoiser.network, clean, sigma, opened.rows("a red fox"), ())
    objective.loss(prediction, clean, sigma, weights=torch.ones(1)).backward()
    adapters.accumulate_gradients()
    assert len(adapters.weights()) == 10  # queries, keys, values and outputs twice, and the feed-forward's two
    assert all(master.grad is not None and bool(master.grad.isfinite().all()) for master in adapters.masters)
    path = opened.module("atelier.lora.file").save_lora(tmp_path / "lora.safetensors", adapters.weights())
    comfy.sd.load_lora_for_models(patcher, None, load_file(path), 1.0, 0.0)
    assert "not loaded" not in caplog.text.lower()
