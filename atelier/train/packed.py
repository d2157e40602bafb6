"""Frozen layers whose weights stay in the layout that the processor's kernels want.

On a processor PyTorch rearranges a layer's weight into blocks at every call, forward and backward. With small pictures
that takes longer than the arithmetic. A weight that never changes needs it once; two rearranged copies are kept, one
for each direction. Results equal the plain layers' but for rounding.
"""

from __future__ import annotations

import logging
from typing import Any, Protocol

import psutil
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

logger = logging.getLogger("atelier")

MEMORY_SHARE = 0.5
"""Weights and copies may take so much of the machine's memory. All of it, not what is free: a run that goes on later
must compute as it began."""


def pack_frozen(module: nn.Module) -> int:
    """Have a module's frozen convolutions and linear layers keep rearranged copies of their weights.

    Only on a processor, in float32 or bfloat16, where this build of PyTorch can do it, and if the machine has the
    memory. The module's parameters stay as they are; a copy is made when its layer is first called for training.

    Returns:
        How many layers changed.
    """
    weights = list(module.parameters())
    if not weights or weights[0].device.type != "cpu":
        return 0
    need = 3 * sum(weight.nbytes for weight in weights)
    if need > MEMORY_SHARE * psutil.virtual_memory().total or not _works(weights[0].dtype):
        return 0
    packed = [layer for layer in map(_packed, module.modules()) if layer is not None]
    for layer in packed:
        layer.module.forward = layer
    return len(packed)


def _packed(module: nn.Module) -> _Layer | None:
    """The layer's replacement for `forward`; None for layers that stay as they are."""
    weight = getattr(module, "weight", None)
    if type(module) not in (nn.Conv2d, nn.Linear) or not isinstance(weight, Tensor) or weight.requires_grad:
        return None
    if isinstance(module, nn.Linear):
        return _Layer(module, _LinearKernel())
    assert isinstance(module, nn.Conv2d)
    regular = module.stride == (1, 1) and module.dilation == (1, 1) and module.groups == 1
    if not regular or isinstance(module.padding, str) or module.padding_mode != "zeros":
        return None
    height, width = module.kernel_size
    above, left = module.padding
    if above >= height or left >= width:
        return None
    return _Layer(module, _ConvKernel((above, left), (height - 1 - above, width - 1 - left)))


class _Kernel(Protocol):
    """What differs between convolutions and linear layers. `back` is True for the gradient of the input."""

    dims: int
    """Fewest dimensions of an input."""

    def pack(self, weight: Tensor, like: Tensor, *, back: bool) -> Tensor:
        """The weight, rearranged for inputs of a shape; it serves other shapes too."""
        ...

    def run(self, x: Tensor, packed: Tensor, bias: Tensor | None, *, back: bool) -> Tensor:
        """The layer's result."""
        ...


class _ConvKernel:
    """A convolution of stride 1. The gradient of its input is the gradient of its output, convolved with the kernel
    turned by 180° and its channels swapped, with padding k − 1 − p (Dumoulin and Visin 2016, relationship 8,
    https://arxiv.org/abs/1603.07285)."""

    dims = 4

    def __init__(self, padding: tuple[int, int], back_padding: tuple[int, int]) -> None:
        self._padding = {False: list(padding), True: list(back_padding)}

    def pack(self, weight: Tensor, like: Tensor, *, back: bool) -> Tensor:
        if back:
            weight = weight.flip(2, 3).transpose(0, 1).contiguous()
        reorder: Any = torch._C._nn.mkldnn_reorder_conv2d_weight  # pyright: ignore[reportAttributeAccessIssue]
        return reorder(weight.to_mkldnn(), self._padding[back], [1, 1], [1, 1], 1, list(like.shape))

    def run(self, x: Tensor, packed: Tensor, bias: Tensor | None, *, back: bool) -> Tensor:
        return torch.ops.mkldnn._convolution_pointwise(x, packed, bias, self._padding[back], [1, 1], [1, 1], 1, "none",
                                                       [], "")


class _LinearKernel:
    """A linear layer; for its gradient the weight is transposed."""

    dims = 2

    def pack(self, weight: Tensor, like: Tensor, *, back: bool) -> Tensor:
        return torch.ops.mkldnn._reorder_linear_weight(weight.t().contiguous() if back else weight,
                                                       like.numel() // like.shape[-1])

    def run(self, x: Tensor, packed: Tensor, bias: Tensor | None, *, back: bool) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")


class _Layer:
    """Stands in for the `forward` of a frozen layer."""

    def __init__(self, module: nn.Conv2d | nn.Linear, kernel: _Kernel) -> None:
        self.module, self.kernel = module, kernel
        self._copies: dict[bool, Tensor] = {}

    def __call__(self, input: Tensor) -> Tensor:
        x = input  # named as the plain layers name it
        training = torch.is_grad_enabled()
        # Copies are made for the shape that is trained on; before that, and for what does not fit, the plain layer.
        if x.ndim < self.kernel.dims or x.dtype != self.module.weight.dtype or not (training or False in self._copies):
            return type(self.module).forward(self.module, x)  # type: ignore[arg-type]
        return _Frozen.apply(x, self)  # type: ignore[return-value]

    def run(self, x: Tensor, *, back: bool) -> Tensor:
        x = x.contiguous()
        if back not in self._copies:
            with torch.inference_mode(False):
                self._copies[back] = self.kernel.pack(self.module.weight.detach(), x, back=back)
        return self.kernel.run(x, self._copies[back], None if back else self.module.bias, back=back)


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
    with torch.random.fork_rng(devices=[]):  # initial values are drawn, but not from the caller's stream
        plain: tuple[nn.Conv2d | nn.Linear, ...] = (nn.Conv2d(8, 16, 3, padding=1), nn.Linear(8, 16))
    inputs = torch.linspace(-1, 1, 8 * 16).reshape(1, 8, 4, 4), torch.linspace(-1, 1, 64).reshape(8, 8)
    try:
        for module, values in zip(plain, inputs, strict=True):
            module.requires_grad_(False).to(dtype)
            x, y = (values.to(dtype).requires_grad_() for _ in range(2))
            layer = _packed(module)
            assert layer is not None
            expected, found = module(x), layer(y)
            expected.sum().backward()
            found.sum().backward()
            assert x.grad is not None and y.grad is not None
            tolerance = 1e-5 if dtype == torch.float32 else 3e-2
            if not (torch.allclose(expected, found, tolerance, tolerance)
                    and torch.allclose(x.grad, y.grad, tolerance, tolerance)):
                raise RuntimeError("results differ")
    except (AttributeError, RuntimeError, TypeError) as error:
        logger.info("Weights are not rearranged, which makes training slower: %s", str(error).partition("\n")[0])
        return False
    return True
