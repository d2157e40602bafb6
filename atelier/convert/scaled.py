"""Write the UNet's large matrices as scaled float8, in the form that ComfyUI loads (`checkpoint.scaled`)."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from ..checkpoint.entry import Entry
from ..checkpoint.scaled import FORMAT, SCALE, WEIGHT
from ..errors import AtelierError
from ..models.keymap import Shape
from ..models.lazy_tensor import LazyTensor

if TYPE_CHECKING:
    from torch import Tensor

LARGEST = 448.0
"""Of float8_e4m3fn."""
MULTIPLE = 16
"""What both sides of a matrix must be multiples of: cards with float8 units multiply no others."""
_DESCRIPTION = json.dumps({"format": "float8_e4m3fn", "full_precision_matrix_mult": True}).encode()
"""Only the weights are float8. Without the second entry the host would, on some cards, round what goes into the layer
to float8 as well, without a scale."""


def becomes_scaled(name: str, shape: Shape) -> bool:
    """Whether a tensor of the UNet is one of a transformer block's matrices: attention and feed-forward. `name` may be
    of either layout.

    They are most of a UNet's numbers. What is left as it is: norms and biases, convolutions (among them the first and
    the last layer), the embeddings of time and size with the layers that take them to each block, and the projections
    into and out of each transformer.
    """
    return (".transformer_blocks." in name and name.endswith(WEIGHT) and len(shape) == 2
            and all(side % MULTIPLE == 0 for side in shape))


def as_scaled(tensors: Mapping[str, LazyTensor], chosen: Collection[str]) -> dict[str, LazyTensor]:
    """The tensors with each chosen one as float8, and beside it its scale and the text that names the format."""
    result = dict(tensors)
    for name in chosen:
        layer, weight = name.removesuffix(WEIGHT), _Scaled(name, tensors[name])
        result[name] = LazyTensor.of(Entry("F8_E4M3", tensors[name].shape, weight.numbers))
        result[layer + SCALE] = LazyTensor.of(Entry("F32", (), weight.scale))
        result[layer + FORMAT] = LazyTensor.of(Entry("U8", (len(_DESCRIPTION),), _description))
    return result


def rounded(weight: Tensor) -> Tensor:
    """What a reader makes of the weight once it is scaled float8, in float32."""
    scale = _scale(weight, "the weight")
    return _numbers(weight, scale).float() * scale


class _Scaled:
    """A weight that is read for its scale first and again for its numbers, so that only one is in memory at a time."""

    def __init__(self, name: str, tensor: LazyTensor) -> None:
        self._name, self._tensor = name, tensor
        self._known: Tensor | None = None

    def scale(self) -> Tensor:
        """One number, float32."""
        if self._known is None:
            self._known = _scale(self._tensor.read(), self._name)
        return self._known

    def numbers(self) -> Tensor:
        """The weight over the scale, float8."""
        return _numbers(self._tensor.read(), self.scale())


def _scale(weight: Tensor, name: str) -> Tensor:
    import torch

    largest = weight.float().abs().amax()
    if not bool(largest.isfinite()):
        raise AtelierError(f"{name!r} holds numbers that are not finite.", "The model is damaged; choose another.")
    return largest / LARGEST if bool(largest) else torch.ones(())


def _numbers(weight: Tensor, scale: Tensor) -> Tensor:
    import torch

    return (weight.float() / scale).clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn)


def _description() -> Tensor:
    import torch

    return torch.tensor(list(_DESCRIPTION), dtype=torch.uint8)
