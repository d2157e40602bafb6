"""Files of quantised weights through the host's own loader: trained without a change, and their LoRA in the host."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from kit.host_families import Opened, open_patcher
from kit.quantized_files import FORMATS, TEXT_WIDTH, krea2_file, load_file_in_host
from safetensors.torch import load_file

pytestmark = pytest.mark.host


def opened_file(pack: ModuleType, folder: Path, quantization: str) -> Opened:
    with torch.inference_mode():
        patcher = load_file_in_host(krea2_file(folder, quantization))
    return open_patcher(pack, patcher, folder, TEXT_WIDTH)


def noise(opened: Opened, seed: int) -> torch.Tensor:
    return torch.randn(1, *opened.latents, generator=torch.Generator().manual_seed(seed))


def stored(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The bytes that the weights are kept as, by the names of the file."""
    return {name.replace(".base_layer", ""): tensor.contiguous().view(torch.uint8).clone()
            for name, tensor in network.state_dict().items() if ".lora_" not in name and tensor.dim()}


@pytest.mark.parametrize(("quantization", "kind"), [
    *((quantization, kind) for quantization in ("", *FORMATS) for kind in ("lora", "dora")), (FORMATS[0], "lokr"),
    (FORMATS[0], "oft")])
def test_weights_stay_as_in_the_file_and_every_adapter_learns(pack: ModuleType, tmp_path: Path, quantization: str,
                                                              kind: str) -> None:
    opened = opened_file(pack, tmp_path, quantization)
    request = opened.request(kind=kind)
    denoiser = opened.denoiser(request, torch.bfloat16)
    before = stored(denoiser.network)
    if quantization:
        in_file = load_file(opened.host.files[0])["blocks.0.attn.wq.weight"]
        assert torch.equal(before["blocks.0.attn.wq.weight"], in_file.view(torch.uint8))
    adapters = opened.adapters(denoiser, request)
    clean, random, sigma = noise(opened, 1), noise(opened, 2), torch.tensor([0.3])
    objective = denoiser.objective(request.loss, request.levels)
    prediction = denoiser.predict(denoiser.network, objective.noisy(clean, random, sigma), sigma,
                                  opened.rows("a red fox"), ())
    objective.loss(prediction, clean, sigma, weights=torch.ones(1)).backward()
    adapters.accumulate_gradients()
    gradients = {name: master for name, master in zip(adapters.names, adapters.masters, strict=True)
                 if name.startswith("diffusion_model.blocks.")}
    # Of two blocks q, k, v, output and three of the feed-forward; A and B, or the blocks of a rotation.
    assert len(gradients) >= 2 * 7 * (1 if kind == "oft" else 2)
    for name, master in gradients.items():
        assert master.grad is not None and bool(master.grad.any()), name
    after = stored(denoiser.network)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert adapters.damaged_weight() == ""


@pytest.mark.parametrize("quantization", FORMATS)
def test_quantised_blocks_wait_in_main_memory_as_they_are(pack: ModuleType, tmp_path: Path, quantization: str) -> None:
    opened = opened_file(pack, tmp_path, quantization)
    outcomes = []
    for number in (0, 100):
        denoiser = opened.denoiser(opened.request(gradient_checkpointing="on", blocks_to_swap=number), torch.bfloat16)
        adapters = opened.adapters(denoiser, opened.request())
        seen: list[tuple[Any, Any]] = []
        for layer in denoiser.network.modules():
            if getattr(layer, "quant_format", None):
                layer.register_forward_pre_hook(lambda layer, given, seen=seen: seen.append((layer, layer.weight)))
        prediction = denoiser.predict(denoiser.network, noise(opened, 3), torch.tensor([0.6]), opened.rows("a fox"), ())
        prediction.square().mean().backward()
        assert len(seen) > 20
        # The weights that are computed with are copies, quantised like those that wait.
        assert all((weight is layer.weight) == (number == 0) for layer, weight in seen)
        assert {type(weight.data) for _, weight in seen} == {type(layer.weight.data) for layer, _ in seen}
        adapters.accumulate_gradients()
        outcomes.append((prediction.detach(), [master.grad for master in adapters.masters], stored(denoiser.network)))
    (plain, gradients, before), (swapped, others, after) = outcomes
    assert torch.equal(plain, swapped)
    assert all(one is None or torch.equal(one, other) for one, other in zip(gradients, others, strict=True))
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("quantization", FORMATS)
def test_its_lora_does_in_the_host_what_the_adapters_did(pack: ModuleType, tmp_path: Path, quantization: str,
                                                         caplog: pytest.LogCaptureFixture) -> None:
    opened = opened_file(pack, tmp_path, quantization)
    request = opened.request(rank=8)
    denoiser = opened.denoiser(request, torch.bfloat16)
    noisy, sigma, rows = noise(opened, 3), torch.tensor([0.6]), opened.rows("a red fox")

    def difference(one: Any, other: Any) -> float:
        return float((one - other).float().norm() / other.float().norm())

    with torch.no_grad():
        plain = denoiser.predict(denoiser.network, noisy, sigma, rows, ())
        adapters = opened.adapters(denoiser, request)
        adapted = denoiser.predict(denoiser.network, noisy, sigma, rows, ())
    path = opened.module("atelier.lora.file").save_lora(tmp_path / "lora.safetensors", adapters.weights())
    in_host, _ = opened.in_host(load_file(path), rows[0], noisy, sigma)
    assert "not loaded" not in caplog.text.lower()
    # The host rounds the merged weights to the file's format again: its result is near, in four bits less so.
    assert difference(adapted, in_host) < (0.75 if quantization == "nvfp4" else 0.25) * difference(adapted, plain)
