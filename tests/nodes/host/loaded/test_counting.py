"""The memory of a step, counted before it starts, and text encoders that do not fit."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from kit.host_families import CONFIGS, Opened, open_small

pytestmark = pytest.mark.host


@pytest.fixture(params=sorted(CONFIGS))
def opened(request: pytest.FixtureRequest, pack: ModuleType, tmp_path: Path) -> Opened:
    return open_small(pack, request.param, tmp_path)


def saved(network: torch.nn.Module, run: Any) -> int:
    """Bytes that autograd really keeps after a forward pass, the weights left out."""
    own = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    held: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        run()
    return sum(tensor.untyped_storage().nbytes() for address, tensor in held.items() if address not in own)


def test_the_count_is_what_a_real_step_keeps(opened: Opened) -> None:
    request = opened.request(batch_size=2)
    denoiser = opened.denoiser(request)
    rows = opened.rows("a red fox in the snow") * 2
    before = {name: tensor.clone() for name, tensor in denoiser.network.state_dict().items()}
    count = opened.module("nodes.host.loaded.counting").count_training(denoiser, opened.encoded(), request)
    assert all(torch.equal(tensor, before[name]) for name, tensor in denoiser.network.state_dict().items())
    assert count.weights == sum(parameter.nbytes for parameter in denoiser.network.parameters())
    adapters = opened.adapters(denoiser, request)
    assert count.adapters == 16 * sum(master.numel() for master in adapters.masters)
    noisy = torch.randn(2, *opened.latents)
    kept = saved(denoiser.network, lambda: denoiser.predict(denoiser.network, noisy, torch.full((2,), 0.5), rows, ()))
    assert count.kept == pytest.approx(kept, rel=0.1)


def test_the_text_encoder_of_another_model_is_refused(opened: Opened) -> None:
    wrong = replace(opened.clip, width=48)
    host = replace(opened.host, clip=wrong, text="another")
    with pytest.raises(opened.module("atelier.errors").AtelierError, match=r"text encoder does not fit.*48.*Connect"):
        host._check_clip(torch.float32)
    opened.host._check_clip(torch.float32)


def losses(opened: Opened, request: Any) -> tuple[float, dict[str, torch.Tensor], Any]:
    """A step's loss and gradients, and the denoiser."""
    denoiser = opened.denoiser(request)
    adapters = opened.adapters(denoiser, request)
    objective = denoiser.objective(request.loss, request.levels)
    clean, random = (torch.randn(1, *opened.latents, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    sigma = torch.tensor([0.4])
    prediction = denoiser.predict(denoiser.network, objective.noisy(clean, random, sigma), sigma,
                                  opened.rows("a red fox"), ())
    loss = objective.loss(prediction, clean, sigma, weights=torch.ones(1))
    loss.backward()
    return loss.item(), {name: master.grad for name, master in zip(adapters.names, adapters.masters, strict=True)
                         if master.grad is not None}, denoiser


def test_blocks_in_main_memory_change_no_bit(opened: Opened) -> None:
    plain, gradients, denoiser = losses(opened, opened.request(gradient_checkpointing="on"))
    swapped, others, again = losses(opened, opened.request(gradient_checkpointing="on", blocks_to_swap=100))
    assert swapped == plain
    assert gradients.keys() == others.keys()
    assert all(torch.equal(others[name], gradient) for name, gradient in gradients.items())
    one, other = denoiser.network.state_dict(), again.network.state_dict()
    assert all(torch.equal(other[name], tensor) for name, tensor in one.items())


def test_a_card_too_small_gets_checkpointing_and_then_blocks_in_main_memory(pack: ModuleType, tmp_path: Path,
                                                                            monkeypatch: pytest.MonkeyPatch,
                                                                            caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "atelier")
    opened = open_small(pack, "flux", tmp_path)
    request = opened.request()
    counted = opened.module("nodes.host.loaded.counting").count_training(opened.denoiser(request), opened.encoded(),
                                                                         request)
    model = opened.module("nodes.host.loaded.model")

    def loaded(free: int) -> Any:
        monkeypatch.setattr(model, "_free", lambda device: free)
        return opened.host.load(opened.encoded(), request, device=torch.device("cpu"), dtype=torch.float32)

    assert counted.kept_with_checkpointing < 0.8 * counted.kept
    roomy = counted.weights + counted.adapters + 2 * counted.kept
    assert not loaded(roomy).checkpointing
    tight = loaded(int(counted.weights + counted.adapters + 1.16 * counted.kept_with_checkpointing))
    assert tight.checkpointing and not any("memory" in note for note in tight.notes)
    small = loaded(int(counted.weights * 0.9 + counted.adapters + 1.16 * counted.kept_with_checkpointing))
    assert small.checkpointing and "blocks waited in main memory" in small.notes[0]
    assert "A training step takes about" in caplog.text and "blocks in main memory, and" in caplog.text, "said at once"
    assert any("expect it to run out of memory" in note for note in loaded(1000).notes)
