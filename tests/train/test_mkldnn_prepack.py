"""Frozen layers with rearranged weights: the plain layers' results and gradients, and a way back."""

from __future__ import annotations

import gc
import platform
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from kit.training import MemorySet, denoiser
from kit.training_loop import request, train_steps
from torch import Tensor, nn

from atelier.train import mkldnn_prepack as packed
from atelier.train.mkldnn_prepack import prepack_frozen
from atelier.train.request.lora import LoraConfig
from atelier.train.trainer import Trainer

STEPS = 6
PLAIN = dict(batch_size=2, gradient_accumulation=2, monitor="off", patience=0, schedule="constant")

# By what PyTorch says, not by the code's own trial: were that to fail here, these tests are to fail too.
if platform.machine() not in ("x86_64", "AMD64") or not torch.backends.mkldnn.is_available():
    pytest.skip("this processor or build of PyTorch cannot rearrange weights", allow_module_level=True)
DTYPES = [torch.float32, *([torch.bfloat16] if torch.ops.mkldnn._is_mkldnn_bf16_supported() else [])]


@pytest.fixture(autouse=True)
def all_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The layers of tests are small."""
    monkeypatch.setattr(packed, "SMALLEST", 0)


def results(layer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """What the layer gives, and the gradient of its input for an uneven gradient of that."""
    x = x.detach().requires_grad_()
    out = layer(x)
    out.backward(torch.linspace(-1, 1, out.numel()).reshape(out.shape).to(out.dtype))
    assert x.grad is not None
    return out.detach(), x.grad


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("make", "shapes"), [
    (lambda: nn.Conv2d(12, 20, 3, padding=1), [(1, 12, 8, 8), (3, 12, 5, 9), (1, 12, 1, 1), (2, 12, 40, 40)]),
    (lambda: nn.Conv2d(12, 20, 5, bias=False), [(2, 12, 8, 8), (1, 12, 7, 5)]),
    (lambda: nn.Conv2d(6, 4, (3, 5), padding=(0, 2)), [(1, 6, 8, 8), (2, 6, 3, 5)]),
    (lambda: nn.Linear(12, 20), [(2, 9, 12), (1, 12), (5, 4, 3, 12)]),
    (lambda: nn.Linear(12, 20, bias=False), [(2, 9, 12)]),
], ids=["3x3", "5x5", "uneven", "linear", "without bias"])
def test_layers_give_what_plain_ones_give(make: Callable[[], nn.Module], shapes: list[tuple[int, ...]],
                                          dtype: torch.dtype) -> None:
    layer = make().to(dtype).requires_grad_(False)
    stream = torch.Generator().manual_seed(0)
    inputs = [torch.randn(shape, generator=stream).to(dtype) for shape in shapes]
    if isinstance(layer, nn.Conv2d):
        inputs.append(inputs[0].to(memory_format=torch.channels_last))
    expected = [results(layer, x) for x in inputs]
    assert prepack_frozen(layer) == 1
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    for x, (out, gradient) in zip(inputs, expected, strict=True):
        found = results(layer, x)
        torch.testing.assert_close(found[0], out, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(found[1], gradient, rtol=tolerance, atol=tolerance)
        with torch.no_grad():
            torch.testing.assert_close(layer(x), found[0], rtol=0, atol=0)


def test_only_frozen_regular_layers_change() -> None:
    layers = nn.ModuleDict({
        "conv": nn.Conv2d(4, 4, 3, padding=1), "linear": nn.Linear(4, 4), "stride": nn.Conv2d(4, 4, 3, stride=2),
        "groups": nn.Conv2d(4, 4, 3, groups=2), "circular": nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
        "wide": nn.Conv2d(4, 4, 2, padding=2), "dilated": nn.Conv2d(4, 4, 3, dilation=2), "point": nn.Conv2d(4, 4, 1),
        "same": nn.Conv2d(4, 4, 3, padding="same"), "norm": nn.GroupNorm(2, 4)}).requires_grad_(False)
    layers["trained"] = nn.Linear(4, 4)
    assert prepack_frozen(layers) == 2
    assert {name for name, layer in layers.items() if "forward" in vars(layer)} == {"conv", "linear"}


def test_small_layers_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "SMALLEST", 17)
    layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 5)]).requires_grad_(False)
    assert prepack_frozen(layers) == 1 and "forward" in vars(layers[1])


def test_other_types_than_the_weights_go_to_the_plain_layer() -> None:
    layer = nn.Linear(4, 4).requires_grad_(False)
    prepack_frozen(layer)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer(torch.ones(1, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert layer(torch.ones(0, 4)).shape == (0, 4)


@pytest.mark.parametrize(("make", "kernel", "shape"), [
    (lambda: nn.Conv2d(4, 4, 3, padding=1), packed._ConvKernel, (1, 4, 6, 6)),
    (lambda: nn.Linear(4, 4), packed._LinearKernel, (2, 4))], ids=["3x3", "linear"])
def test_each_copy_is_made_once_when_it_is_first_used(monkeypatch: pytest.MonkeyPatch, make: Callable[[], nn.Module],
                                                      kernel: Any, shape: tuple[int, ...]) -> None:
    plain, made = kernel.pack, list[bool]()

    def pack(self: Any, weight: Tensor, *, back: bool) -> Tensor:
        made.append(back)
        return plain(self, weight, back=back)

    layer = make().requires_grad_(False)
    monkeypatch.setattr(packed, "_works", lambda dtype: True)  # whose trials pack, too
    monkeypatch.setattr(kernel, "pack", pack)
    assert prepack_frozen(layer) == 1 and made == []
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():  # as samples are drawn
        seen = layer(x)
    assert made == [False]
    out, gradient = results(layer, x)
    assert made == [False, True]
    again = results(layer, x)
    assert made == [False, True]
    assert torch.equal(seen, out) and torch.equal(out, again[0]) and torch.equal(gradient, again[1])


def test_weights_go_with_their_module() -> None:
    layer = nn.Linear(4, 4).requires_grad_(False)
    assert prepack_frozen(layer) == 1
    weight = weakref.ref(layer.weight)
    gc.disable()  # no cycle may be left for it
    try:
        del layer
        assert weight() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("kernel", [packed._ConvKernel, packed._LinearKernel])
@pytest.mark.parametrize("fault", ["gone", "wrong result", "wrong gradient"])
def test_without_working_kernels_nothing_changes(monkeypatch: pytest.MonkeyPatch, kernel: Any, fault: str) -> None:
    working = kernel.run

    def run(self: Any, x: Tensor, weight: Tensor, bias: Tensor | None, *, back: bool) -> Tensor:
        if fault == "gone":
            raise AttributeError("no such operation")
        out = working(self, x, weight, bias, back=back)
        return out * 1.1 if back == (fault == "wrong gradient") else out
    monkeypatch.setattr(kernel, "run", run)
    layer = nn.Linear(4, 4).requires_grad_(False)
    before = torch.random.get_rng_state()
    assert prepack_frozen(layer) == 0
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("dtype", DTYPES)
def test_kernels_may_be_as_wrong_as_the_type_rounds(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    working, wrong = packed._LinearKernel.run, 1.01
    monkeypatch.setattr(packed._LinearKernel, "run", lambda *args, **options: working(*args, **options) * wrong)
    layer = nn.Linear(4, 4).to(dtype).requires_grad_(False)
    assert prepack_frozen(layer) == (0 if dtype == torch.float32 else 1)
    wrong = 1.2
    assert prepack_frozen(nn.Linear(4, 4).to(dtype).requires_grad_(False)) == 0


def test_the_memory_of_machine_or_container_decides(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    layer = nn.Linear(64, 64).requires_grad_(False)
    need = 3 * 4 * (64 * 64 + 64)

    def path(_: str) -> Path:
        return tmp_path
    monkeypatch.setattr(packed, "Path", path)
    for limit, changed in (("max", 1), (str(2 * need), 1), (str(2 * need - 2), 0)):
        (tmp_path / "memory.max").write_text(limit, encoding="ascii")
        assert prepack_frozen(layer) == changed, limit
        vars(layer).pop("forward", None)
    monkeypatch.setattr(packed.psutil, "virtual_memory", lambda: type("Memory", (), {"total": need}))
    assert prepack_frozen(layer) == 0


CONVOLUTIONS = LoraConfig(rank=4, targets="attention_ff_conv")


@pytest.mark.parametrize(("lora", "dtype", "rate", "tolerance", "checkpointing"), [
    (LoraConfig(rank=4), torch.float32, 3e-4, 1e-3, True),
    (replace(CONVOLUTIONS, dropout=0.3), torch.float32, 3e-4, 1e-3, False),
    (replace(CONVOLUTIONS, dropout=0.3), torch.float32, 3e-4, 1e-3, True),
    (LoraConfig(rank=4, kind="dora"), torch.float32, 3e-4, 1e-3, False),
    (CONVOLUTIONS, torch.bfloat16, 3e-3, 1.5e-2, True),
], ids=["attention, checkpointing", "convolutions, dropout", "convolutions, dropout, checkpointing", "dora",
        "bfloat16, checkpointing"])
def test_steps_lose_what_plain_ones_lose(monkeypatch: pytest.MonkeyPatch, lora: LoraConfig, dtype: torch.dtype,
                                         rate: float, tolerance: float, checkpointing: bool) -> None:
    if dtype not in DTYPES:
        pytest.skip("this processor has no kernels for bfloat16")

    def losses(rate: float = rate) -> tuple[int, list[float]]:
        made = denoiser()
        nn.Module.to(made.unet, dtype)  # diffusers' own warns
        if checkpointing:
            made.unet.enable_gradient_checkpointing()
        config = replace(request(PLAIN, learning_rate=rate, steps=STEPS), lora=lora)
        trainer = Trainer(replace(made, dtype=dtype), cast("Any", MemorySet.of(8)), config)
        changed = sum("forward" in vars(module) for module in made.unet.modules())
        return changed, [trainer.validate(), *train_steps(trainer, STEPS),
                         trainer.validate()]

    changed, found = losses()
    untrained = losses(1e-12)[1]
    monkeypatch.setattr(packed, "MEMORY_SHARE", 0.0)
    unchanged, expected = losses()
    assert changed > 20 and unchanged == 0
    assert found == pytest.approx(expected, rel=tolerance)
    assert expected != pytest.approx(untrained, rel=tolerance), "nothing was learnt, so nothing was compared"


def test_what_has_no_weights_on_the_processor_stays_as_it_is() -> None:
    assert prepack_frozen(nn.Sequential(nn.ReLU())) == 0
    assert prepack_frozen(nn.Linear(2048, 2048, device="meta").requires_grad_(False)) == 0
