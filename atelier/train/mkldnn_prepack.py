"""Prepacked weights for frozen layers on the CPU, in the blocked layout of oneDNN's (MKL-DNN's) kernels.

On the CPU PyTorch reorders a layer's weight into blocks at every call, forward and backward. For small pictures that
takes longer than the arithmetic. A frozen weight needs it once; two reordered copies are kept, one for the output and
one for the gradient of the input. Each is made when it is first used: the first step begins sooner, and takes longer.
Results equal the plain layers' up to rounding.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import psutil
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

log = logging.getLogger("atelier")

MEMORY_SHARE = 0.5
"""Share of the machine's memory that weights and copies may take. It is measured by the total, not by the free memory,
so that a resumed run computes as it did before."""

SMALLEST = 2 ** 17
"""Smallest weight, in numbers, that is prepacked; below it the call costs more than the reordering."""

_NOMINAL = 16
"""Side of the feature map that convolutions are prepared for. Any serves every other; only 1 × 1 kernels, which are
left as they are, have layouts of their own for small maps."""


def prepack_frozen(module: nn.Module) -> int:
    """Have the weights of a module's large frozen convolutions and linear layers prepacked at their first use.

    Only on the CPU, in float32 or bfloat16, if this build of PyTorch supports it and the machine has the memory. The
    module's parameters stay as they are; it must not be copied, moved or cast afterwards.

    Returns:
        How many layers changed.
    """
    weights = list(module.parameters())
    if not weights or any(weight.device.type != "cpu" for weight in weights):
        return 0
    need = 3 * sum(weight.nbytes for weight in weights)
    if need > MEMORY_SHARE * _machine_memory() or not _works(weights[0].dtype):
        return 0
    changed = 0
    for layer in module.modules():
        kernel = _kernel_for(layer)
        if kernel is not None:
            layer.forward = _Layer(kernel, layer.weight, layer.bias)  # type: ignore[arg-type]
            changed += 1
    return changed


def _kernel_for(module: nn.Module) -> _Kernel | None:
    """The kernel of a layer; None if it is not prepacked."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.requires_grad or weight.numel() < SMALLEST:
        return None
    if type(module) is nn.Linear:
        return _LinearKernel()
    if type(module) is not nn.Conv2d or module.padding_mode != "zeros" or isinstance(module.padding, str):
        return None
    if module.stride != (1, 1) or module.dilation != (1, 1) or module.groups != 1:
        return None
    height, width = module.kernel_size
    above, left = module.padding
    if height * width == 1 or above >= height or left >= width:
        return None
    return _ConvKernel((above, left), (height - 1 - above, width - 1 - left))


class _Kernel(Protocol):
    """What differs between convolutions and linear layers.

    `back` is False for the layer's result, True for the gradient of its input from that of its result.
    """

    dims: int
    """Fewest dimensions of an input."""

    def plain(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The layer as PyTorch computes it."""
        ...

    def pack(self, weight: Tensor, *, back: bool) -> Tensor:
        """The weight, rearranged."""
        ...

    def run(self, x: Tensor, packed: Tensor, bias: Tensor | None, *, back: bool) -> Tensor:
        """The same as `plain`, or its transpose, with a rearranged weight."""
        ...


class _ConvKernel:
    """A convolution of stride 1. The gradient of its input is the gradient of its output, convolved with the kernel
    turned by 180° and its channels swapped, with padding k − 1 − p (Dumoulin and Visin 2016, relationship 8,
    https://arxiv.org/abs/1603.07285)."""

    dims = 4

    def __init__(self, padding: tuple[int, int], back_padding: tuple[int, int]) -> None:
        self._padding = {False: list(padding), True: list(back_padding)}

    def plain(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return functional.conv2d(x, weight, bias, padding=self._padding[False])

    def pack(self, weight: Tensor, *, back: bool) -> Tensor:
        if back:
            weight = weight.flip(2, 3).transpose(0, 1).contiguous()
        reorder: Any = torch._C._nn.mkldnn_reorder_conv2d_weight  # pyright: ignore[reportAttributeAccessIssue]
        return reorder(weight.to_mkldnn(), self._padding[back], [1, 1], [1, 1], 1,
                       [1, weight.shape[1], _NOMINAL, _NOMINAL])

    def run(self, x: Tensor, packed: Tensor, bias: Tensor | None, *, back: bool) -> Tensor:
        return torch.ops.mkldnn._convolution_pointwise(x, packed, bias, self._padding[back], [1, 1], [1, 1], 1, "none",
                                                       [], "")


class _LinearKernel:
    """A linear layer; for the gradient the weight is transposed."""

    dims = 2

    def plain(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return functional.linear(x, weight, bias)

    def pack(self, weight: Tensor, *, back: bool) -> Tensor:
        return torch.ops.mkldnn._reorder_linear_weight(weight.t().contiguous() if back else weight)

    def run(self, x: Tensor, packed: Tensor, bias: Tensor | None, *, back: bool) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")


class _Layer:
    """Stands in for the `forward` of a frozen layer. It does not know its module: no cycle keeps the weights."""

    def __init__(self, kernel: _Kernel, weight: Tensor, bias: Tensor | None) -> None:
        self._kernel, self._weight, self._bias = kernel, weight, bias
        self._packed: dict[bool, Tensor] = {}

    def __call__(self, input: Tensor) -> Tensor:
        x = input  # named as the plain layers name it
        if x.ndim < self._kernel.dims or x.dtype != self._weight.dtype or not x.numel():
            return self._kernel.plain(x, self._weight, self._bias)
        return _Frozen.apply(x, self)  # type: ignore[return-value]

    def run(self, x: Tensor, *, back: bool) -> Tensor:
        """The result for an input, or the gradient of the input for that of the result."""
        if back not in self._packed:
            self._packed[back] = self._kernel.pack(self._weight.detach(), back=back)
        return self._kernel.run(x.contiguous(), self._packed[back], None if back else self._bias, back=back)


class _Frozen(torch.autograd.Function):
    """A layer without gradients of its own. Nothing is kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: _Layer) -> Tensor:
        ctx.layer = layer
        return layer.run(x, back=False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return ctx.layer.run(grads[0], back=True), None


def _works(dtype: torch.dtype) -> bool:
    """Try both kernels against the plain ones: they are PyTorch's own business, and may change or be missing."""
    if dtype not in (torch.float32, torch.bfloat16) or not torch.backends.mkldnn.is_available():
        return False
    tolerance = 1e-4 if dtype == torch.float32 else 5e-2
    trials: tuple[tuple[_Kernel, tuple[int, ...], tuple[int, ...]], ...] = (
        (_ConvKernel((1, 1), (1, 1)), (16, 8, 3, 3), (1, 8, 4, 4)), (_LinearKernel(), (16, 8), (4, 8)))
    try:
        for kernel, weight_shape, shape in trials:
            weight, x, y = _waves(weight_shape, dtype), _waves(shape, dtype), _waves(shape, dtype)
            for leaf in (x, y):
                leaf.requires_grad_()
            expected, found = kernel.plain(x, weight, None), _Layer(kernel, weight, None)(y)
            for out in (expected, found):
                out.backward(_waves(tuple(out.shape), dtype))
            assert x.grad is not None and y.grad is not None
            for one, other in ((expected, found), (x.grad, y.grad)):
                if not torch.allclose(one, other, tolerance, tolerance):
                    raise RuntimeError("results differ")
    except (AttributeError, RuntimeError, TypeError) as error:
        log.info("Weights are not rearranged, which makes training slower: %s", str(error).partition("\n")[0])
        return False
    return True


def _waves(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Uneven values from -1 to 1 that need no random numbers."""
    return torch.arange(torch.Size(shape).numel()).mul(0.7).sin().reshape(shape).to(dtype)


def _machine_memory() -> int:
    """Bytes of the machine, or of the container that this process is limited to."""
    limits = [psutil.virtual_memory().total]
    for place in ("memory.max", "memory/memory.limit_in_bytes"):  # Linux' control groups, version 2 and 1
        with suppress(OSError, ValueError):  # other systems, or "max" for none
            limits.append(int((Path("/sys/fs/cgroup") / place).read_text(encoding="ascii")))
    return min(limits)
