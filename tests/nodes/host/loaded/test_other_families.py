"""Further families of the host's, each with one small model: its loss against the papers, gradients with and without
checkpointing, its LoRA in the host, and a sample."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from kit.host_families import Opened, open_small
from kit.host_other_families import OTHERS
from safetensors.torch import load_file
from torch import Tensor

pytestmark = pytest.mark.host

SIGMA = torch.tensor([0.3, 0.8])


def noise(opened: Opened, seed: int) -> Tensor:
    channels, *frames = opened.latents[:-2]
    side = 64 if channels == 4 else 8  # PixArt's grid of positions is rounded to 64
    return torch.randn(2, channels, *frames, side, side, generator=torch.Generator().manual_seed(seed))


def by_the_papers(sampling: Any, clean: Tensor, random: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """The noisy latent and what the network's output is compared with."""
    import comfy.model_sampling as processes

    if isinstance(sampling, processes.V_PREDICTION):  # Salimans and Ho 2022: v = α ε − σ' x₀ with α² + σ'² = 1
        return clean + sigma * random, (random - sigma * clean) / (1 + sigma**2).sqrt()
    if isinstance(sampling, processes.EPS):  # Ho et al. 2020
        return clean + sigma * random, random
    if isinstance(sampling, processes.COSMOS_RFLOW):  # the line below divided by 1 − t, with σ = t / (1 − t)
        return clean + sigma * random, random - clean
    return (1 - sigma) * clean + sigma * random, random - clean  # Lipman et al. 2022


def gradients(opened: Opened, checkpointing: str) -> tuple[dict[str, Tensor], float, float, Any]:
    """Of the adapters; the loss, what the papers say it is, and the denoiser."""
    request = opened.request(gradient_checkpointing=checkpointing)
    denoiser = opened.denoiser(request)
    adapters = opened.adapters(denoiser, request)
    objective = denoiser.objective(request.loss, request.levels)
    outputs: list[Tensor] = []
    denoiser.network.register_forward_hook(lambda module, given, output: outputs.append(output))
    clean, random = noise(opened, 1), noise(opened, 2)
    noisy = objective.noisy(clean, random, SIGMA)
    prediction = denoiser.predict(denoiser.network, noisy, SIGMA, opened.rows("a red fox", "one two fox"), ())
    loss = objective.loss(prediction, objective.target(clean, random, SIGMA), SIGMA, weights=torch.ones(2))
    loss.backward()
    expected_noisy, target = by_the_papers(denoiser.sampling, clean, random,
                                           SIGMA.reshape(-1, *[1] * (clean.dim() - 1)))
    assert torch.allclose(noisy, expected_noisy, atol=1e-5)
    expected = (torch.cat(outputs) - target).square().mean().item()
    return {name: master.grad for name, master in zip(adapters.names, adapters.masters, strict=True)
            if master.grad is not None and bool(master.grad.any())}, loss.item(), expected, (denoiser, adapters)


@pytest.mark.parametrize("family", sorted(OTHERS))
def test_it_is_trained_as_its_paper_says_and_its_lora_does_the_same_in_the_host(
        pack: ModuleType, tmp_path: Path, family: str, caplog: pytest.LogCaptureFixture) -> None:
    opened = open_small(pack, family, tmp_path)
    opened.host._check_clip(torch.float32)
    wrong = replace(opened.host, clip=replace(opened.clip, width=48), text="another")
    # Hunyuan DiT's text is always of one shape here. The others compute with values: experts chosen, words counted.
    by_values = ("hidream", "omnigen2", "boogu")
    if family not in ("hunyuan-dit", *by_values):
        with pytest.raises(opened.module("atelier.errors").AtelierError, match="text encoder does not fit"):
            wrong._check_clip(torch.float32)
    redone, _, _, _ = gradients(opened, "on")
    plain, loss, expected, (denoiser, adapters) = gradients(opened, "off")
    assert loss == pytest.approx(expected, rel=1e-4)
    assert plain.keys() == redone.keys() and len(plain) >= 0.7 * len(adapters.masters)
    for name, gradient in plain.items():
        assert torch.allclose(gradient, redone[name], rtol=1e-4, atol=1e-6), name

    noisy, sigma, rows = noise(opened, 3)[:1], SIGMA[:1], opened.rows("a red fox")
    with torch.no_grad():
        adapted = denoiser.predict(denoiser.network, noisy, sigma, rows, ())
    path = opened.module("atelier.lora.file").save_lora(tmp_path / "lora.safetensors", adapters.weights())
    in_host, unchanged = opened.in_host(load_file(path), rows[0], noisy, sigma)
    assert "not loaded" not in caplog.text.lower()
    assert (adapted - in_host).abs().max() < min(1e-3, 0.05 * (unchanged - in_host).abs().max())

    request = opened.request(sample_prompt="a red fox", sample_steps=2, sample_cfg=2.0, sample_negative="grey")
    loaded = opened.host.load(opened.encoded(), request, device=torch.device("cpu"), dtype=torch.float32)
    wanted = opened.module("atelier.train.samples").SamplePicture(tuple(noisy.shape[-2:]), 0, 1)
    steps: list[int] = []
    picture = loaded.paint(wanted, opened.module("atelier.progress").Progress(), steps.append)
    assert (picture.width, steps) == (8 * noisy.shape[-1], [1, 2])
    assert len(set(picture.getdata())) > 4

    small = family.startswith("pixart")  # which cannot compute with latents of 8 × 8
    counted = opened.module("nodes.host.loaded.counting").count_training(loaded.denoiser, opened.encoded(), request)
    assert (counted is None) == (small or family in by_values), counted
    assert counted is None or counted.kept > counted.kept_with_checkpointing > 0
