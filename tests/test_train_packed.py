"""Frozen layers with rearranged weights: the plain layers' results and gradients, and a way back."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from kit.training import MemorySet, parts
from torch import Tensor, nn

from atelier.train import packed
from atelier.train.config import LoraConfig, TrainConfig, TrainingOptions
from atelier.train.packed import pack_frozen
from atelier.train.trainer import Trainer

DTYPES = [torch.float32, torch.bfloat16]
STEPS = 20
PLAIN = TrainingOptions(batch_size=2, gradient_accumulation=2, monitor="off", patience=0, schedule="constant")

if not packed._works(torch.float32):
    pytest.skip("this build of PyTorch cannot rearrange weights", allow_module_level=True)


def results(layer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """What the layer gives, and the gradient of its input for an uneven gradient of that."""
    x = x.detach().requires_grad_()
    out = layer(x)
    out.backward(torch.linspace(-1, 1, out.numel()).reshape(out.shape).to(out.dtype))
    assert x.grad is not None
    return out.detach(), x.grad


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("layer", "shapes"), [
    (nn.Conv2d(12, 20, 3, padding=1), [(1, 12, 8, 8), (3, 12, 5, 9), (1, 12, 1, 1)]),
    (nn.Conv2d(12, 20, 1, bias=False), [(2, 12, 4, 4), (1, 12, 7, 3)]),
    (nn.Conv2d(6, 4, (3, 5), padding=(0, 2)), [(1, 6, 8, 8), (2, 6, 3, 5)]),
    (nn.Linear(12, 20), [(2, 9, 12), (1, 12), (5, 4, 3, 12)]),
    (nn.Linear(12, 20, bias=False), [(2, 9, 12)]),
], ids=str)
def test_layers_give_what_plain_ones_give(layer: nn.Module, shapes: list[tuple[int, ...]], dtype: torch.dtype) -> None:
    plain = layer.to(dtype).requires_grad_(False)
    stream = torch.Generator().manual_seed(0)
    inputs = [torch.randn(shape, generator=stream).to(dtype) for shape in shapes]
    if isinstance(layer, nn.Conv2d):
        inputs.append(inputs[0].to(memory_format=torch.channels_last))
    expected = [results(plain, x) for x in inputs]
    assert pack_frozen(plain) == 1
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    try:
        for x, (out, gradient) in zip(inputs, expected, strict=True):
            found = results(plain, x)
            torch.testing.assert_close(found[0], out, rtol=tolerance, atol=tolerance)
            torch.testing.assert_close(found[1], gradient, rtol=tolerance, atol=tolerance)
            with torch.no_grad():
                torch.testing.assert_close(plain(x), found[0])
    finally:
        del plain.forward


def test_only_frozen_regular_layers_change() -> None:
    layers = nn.ModuleDict({
        "conv": nn.Conv2d(4, 4, 3, padding=1), "linear": nn.Linear(4, 4), "stride": nn.Conv2d(4, 4, 3, stride=2),
        "groups": nn.Conv2d(4, 4, 3, groups=2), "circular": nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
        "wide": nn.Conv2d(4, 4, 1, padding=1), "dilated": nn.Conv2d(4, 4, 3, dilation=2),
        "same": nn.Conv2d(4, 4, 3, padding="same"), "norm": nn.GroupNorm(2, 4)}).requires_grad_(False)
    layers["trained"] = nn.Linear(4, 4)
    assert pack_frozen(layers) == 2
    assert {name for name, layer in layers.items() if "forward" in vars(layer)} == {"conv", "linear"}


def test_other_types_than_the_weights_go_to_the_plain_layer() -> None:
    layer = nn.Linear(4, 4).requires_grad_(False)
    pack_frozen(layer)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(torch.ones(1, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("missing", ["memory", "operation", "result"])
def test_without_memory_or_kernels_nothing_changes(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    if missing == "memory":
        monkeypatch.setattr(packed, "MEMORY_SHARE", 0.0)
    elif missing == "operation":
        def gone(*_: Any, **__: Any) -> Tensor:
            raise AttributeError("no such operation")
        monkeypatch.setattr(packed._ConvKernel, "run", gone)
    else:
        monkeypatch.setattr(packed._LinearKernel, "run", lambda self, x, weight, bias, back: x.new_zeros(8, 16))
    layer = nn.Linear(4, 4).requires_grad_(False)
    before = torch.random.get_rng_state()
    assert pack_frozen(layer) == 0
    assert torch.equal(before, torch.random.get_rng_state())


def test_twenty_steps_lose_what_plain_ones_lose(monkeypatch: pytest.MonkeyPatch) -> None:
    def losses(rate: float = 3e-4) -> tuple[int, list[float]]:
        config = TrainConfig(LoraConfig(rank=4), TrainingOptions(**{**vars(PLAIN), "learning_rate": rate}), steps=STEPS)
        trainer = Trainer(parts(), cast("Any", MemorySet.of(8)), config)
        changed = sum("forward" in vars(module) for module in trainer.parts.unet.modules())
        return changed, [trainer.train_step()[0].item() for _ in range(STEPS)]

    changed, found = losses()
    untrained = losses(1e-12)[1]
    monkeypatch.setattr(packed, "MEMORY_SHARE", 0.0)
    unchanged, expected = losses()
    assert changed > 20 and unchanged == 0
    assert found == pytest.approx(expected, rel=1e-3)
    assert expected != pytest.approx(untrained, rel=5e-3), "nothing was learnt, so nothing was compared"
