"""The host's networks in training: their loss against the papers, their output against the host's own sampling, their
gradients with and without checkpointing, and their LoRA in the host's loader."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from kit.host_families import CONFIGS, Opened, open_small
from safetensors.torch import load_file

pytestmark = pytest.mark.host

FAMILIES = sorted(CONFIGS)


@pytest.fixture(params=FAMILIES)
def opened(request: pytest.FixtureRequest, pack: ModuleType, tmp_path: Path) -> Opened:
    return open_small(pack, request.param, tmp_path)


def noise(opened: Opened, seed: int) -> torch.Tensor:
    return torch.randn(2, *opened.latents, generator=torch.Generator().manual_seed(seed))


def test_the_loss_is_that_of_the_papers_velocity(opened: Opened) -> None:
    request = opened.request()
    denoiser = opened.denoiser(request)
    objective = denoiser.objective(request.loss, request.levels)
    clean, random, sigma = noise(opened, 1), noise(opened, 2), torch.tensor([0.3, 0.8])
    outputs: list[torch.Tensor] = []
    denoiser.network.register_forward_hook(lambda module, given, output: outputs.append(output))
    noisy = objective.noisy(clean, random, sigma)
    prediction = denoiser.predict(denoiser.network, noisy, sigma, opened.rows("a red fox", "one two fox"), ())
    loss = objective.loss(prediction, objective.target(clean, random, sigma), sigma, weights=torch.ones(2))
    by_sample = sigma.reshape(-1, *[1] * (clean.dim() - 1))
    # Lipman et al. 2022: on the way x_σ = (1 − σ) x₀ + σ ε the velocity is ε − x₀.
    assert torch.allclose(noisy, (1 - by_sample) * clean + by_sample * random, atol=1e-6)
    (velocity,) = outputs
    expected = (velocity - (random - clean)).square().mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_larger_pictures_are_trained_at_more_noise(opened: Opened) -> None:
    """As FLUX.1's code samples them: e^0.5 at 256 × 256 pixels, e^1.15 at 1024 × 1024, which stands for any."""
    request = opened.request(level_shift="resolution")
    denoiser = opened.denoiser(request)
    objective = denoiser.objective(request.loss, request.levels)

    def drawn(objective: Any, pixels: int) -> torch.Tensor:
        side = pixels // objective.pixels_per_latent
        return objective.draw_levels(32, torch.Generator().manual_seed(1), (side, side))

    for pixels, shift in ((256, math.exp(0.5)), (1024, math.exp(1.15)), (0, math.exp(1.15))):
        fixed = denoiser.objective(request.loss, replace(request.levels, level_shift="value", shift_value=shift))
        assert torch.allclose(drawn(objective, pixels), drawn(fixed, pixels)), pixels


def test_texts_of_different_lengths_in_a_batch_give_what_each_gives_alone(opened: Opened) -> None:
    denoiser = opened.denoiser(opened.request())
    clean, sigma = noise(opened, 1), torch.tensor([0.3, 0.8])
    rows = opened.rows("a red fox in the snow", "a fox")
    together = denoiser.predict(denoiser.network, clean, sigma, rows, ())
    alone = [denoiser.predict(denoiser.network, clean[i:i + 1], sigma[i:i + 1], rows[i:i + 1], ()) for i in (0, 1)]
    assert torch.allclose(together, torch.cat(alone), atol=1e-5)


def test_training_computes_what_the_host_samples_with(opened: Opened) -> None:
    denoiser = opened.denoiser(opened.request())
    noisy, sigma, rows = noise(opened, 3)[:1], torch.tensor([0.6]), opened.rows("a red fox")
    trained = denoiser.predict(denoiser.network, noisy, sigma, rows, ())
    inputs = opened.module("nodes.host.loaded.conditions").network_inputs
    with torch.inference_mode():
        model = opened.patcher.model
        sampled = model.apply_model(noisy, sigma, **{
            name: condition.cond for name, condition in inputs(model, rows[0], noisy, None).items()})
    assert torch.allclose(trained, sampled, atol=1e-4)


def test_a_sample_is_what_cores_ksampler_draws(opened: Opened) -> None:
    import comfy.sample

    request = opened.request(sample_prompt="a red fox", sample_negative="one two three", sample_steps=3, sample_cfg=2.0)
    loaded = opened.host.load(opened.encoded(), request, device=torch.device("cpu"), dtype=torch.float32)
    wanted = opened.module("atelier.train.samples").SamplePicture((8, 8), 0, 5)
    picture = loaded.paint(wanted, opened.module("atelier.progress").Progress(), lambda step: None)

    def conditioning(text: str) -> list[Any]:
        found = opened.clip.encode_from_tokens(text, return_pooled=True, return_dict=True)
        return [[found.pop("cond"), found]]

    start = torch.randn(1, *opened.latents, generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        drawn = comfy.sample.sample(opened.patcher, start, 3, 2.0, "euler", "simple", conditioning("a red fox"),
                                    conditioning("one two three"), torch.zeros_like(start), disable_pbar=True, seed=5)
        pixels = opened.vae.decode(drawn).reshape(64, 64, 3).clamp(0, 1) * 255
    shown = torch.tensor(list(picture.getdata())).reshape(64, 64, 3)
    assert len(shown.unique()) > 4
    assert (shown - pixels).abs().max() <= 1.5


def test_checkpointing_changes_no_gradient(opened: Opened) -> None:
    gradients = []
    for checkpointing in ("off", "on"):
        request = opened.request(gradient_checkpointing=checkpointing)
        denoiser = opened.denoiser(request)
        adapters = opened.adapters(denoiser, request)
        objective = denoiser.objective(request.loss, request.levels)
        clean, random, sigma = noise(opened, 1), noise(opened, 2), torch.tensor([0.3, 0.8])
        prediction = denoiser.predict(denoiser.network, objective.noisy(clean, random, sigma), sigma,
                                      opened.rows("a red fox", "one two fox"), ())
        objective.loss(prediction, clean, sigma, weights=torch.ones(2)).backward()
        gradients.append({name: master.grad for name, master in zip(adapters.names, adapters.masters, strict=True)})
    plain, redone = gradients
    reached = {name for name, gradient in plain.items() if gradient is not None and bool(gradient.any())}
    # The text's half of a last block, and attention within a single token, reach no pixel.
    assert len(reached) >= 0.8 * len(plain)
    for name in reached:
        assert torch.allclose(plain[name], redone[name], rtol=1e-4, atol=1e-6), name


@pytest.mark.parametrize("kind", ["lora", "lokr", "oft"])
def test_its_lora_file_does_in_the_host_what_the_adapters_did(opened: Opened, kind: str, tmp_path: Path,
                                                              caplog: pytest.LogCaptureFixture) -> None:
    request = opened.request(kind=kind, **({} if kind == "lora" else {"rank": 2, "alpha": 16.0}))
    denoiser = opened.denoiser(request)
    before = {name: tensor.clone() for name, tensor in denoiser.network.state_dict().items()}
    adapters = opened.adapters(denoiser, request)
    noisy, sigma, rows = noise(opened, 3)[:1], torch.tensor([0.6]), opened.rows("a red fox")
    with torch.no_grad():
        adapted = denoiser.predict(denoiser.network, noisy, sigma, rows, ())
    files = opened.module("atelier.lora.file")
    path = files.save_lora(tmp_path / "lora.safetensors", adapters.weights())
    state = load_file(path)
    again = files.load_lora(path)
    assert all(map(torch.equal, adapters.masters, adapters.tensors_of(again)))
    in_host, plain = opened.in_host(state, rows[0], noisy, sigma)
    assert "not loaded" not in caplog.text.lower()
    assert not torch.allclose(plain, in_host, atol=1e-2)
    assert torch.allclose(adapted, in_host, atol=1e-3)
    frozen = {name.replace(".base_layer", ""): tensor for name, tensor in denoiser.network.state_dict().items()
              if not any(f".{kind}_" in name for kind in ("lora", "lokr", "oft"))}
    assert frozen.keys() == before.keys()
    assert all(torch.equal(frozen[name], tensor) for name, tensor in before.items())


def test_frozen_float8_weights_stay_as_they_are_and_pass_gradients_on(pack: ModuleType, tmp_path: Path) -> None:
    opened = open_small(pack, "flux", tmp_path, torch.float8_e4m3fn)
    request = opened.request()
    denoiser = opened.denoiser(request, torch.bfloat16)
    adapters = opened.adapters(denoiser, request)

    def weights() -> dict[str, Any]:
        return {name: tensor.view(torch.uint8).clone() for name, tensor in denoiser.network.state_dict().items()
                if tensor.dtype == torch.float8_e4m3fn}

    before = weights()
    clean, random, sigma = noise(opened, 1), noise(opened, 2), torch.tensor([0.3, 0.8])
    objective = denoiser.objective(request.loss, request.levels)
    prediction = denoiser.predict(denoiser.network, objective.noisy(clean, random, sigma), sigma,
                                  opened.rows("a red fox", "one two fox"), ())
    objective.loss(prediction, clean, sigma, weights=torch.ones(2)).backward()
    adapters.accumulate_gradients()
    assert all(parameter.dtype == torch.bfloat16 for parameter in adapters.parameters)
    assert all(bool(master.grad.any()) for master in adapters.masters if master.grad is not None)
    assert sum(master.grad is not None for master in adapters.masters) == len(adapters.masters)
    assert len(before) >= 20
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights().items())
    assert adapters.damaged_weight() == ""
    layer = denoiser.network.single_blocks[0].linear2.base_layer
    layer.weight.data[0, 0] = float("nan")
    assert adapters.damaged_weight() == "single_blocks.0.linear2.weight of the diffusion_model"


@pytest.mark.parametrize("family", ["flux", "z-image", "qwen-image", "anima", "krea2", "sd3"])
def test_attention_without_a_backward_pass_is_not_trained_with(pack: ModuleType, tmp_path: Path, family: str,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the host was started with Sage attention."""
    import comfy.ldm.modules.attention as attention

    def without_gradients(q: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        raise AssertionError("the host's attention was used")

    used, chosen = attention.optimized_attention, attention.wrap_attn(without_gradients)
    for module in list(sys.modules.values()):
        for name in ("optimized_attention", "optimized_attention_masked"):
            if getattr(module, name, None) is used:
                monkeypatch.setattr(module, name, chosen)
    opened = open_small(pack, family, tmp_path)
    denoiser = opened.denoiser(opened.request())
    found = denoiser.predict(denoiser.network, noise(opened, 1)[:1], torch.tensor([0.3]), opened.rows("a red fox"), ())
    assert bool(torch.isfinite(found).all())
