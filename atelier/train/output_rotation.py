"""OFT as LyCORIS, sd-scripts and ComfyUI have it, for PEFT's machinery: rotations of what comes out of a layer.

OFT (Qiu et al. 2023, https://arxiv.org/abs/2306.07280) turns blocks of a layer's output channels by Cayley's transform
of skew-symmetric matrices, W' = R · W. PEFT's own OFT turns blocks of input channels, W' = W · Rᵀ, which no file that
ComfyUI reads can hold, so PEFT is given a layer of ours. It needs no weights, only what the layer computes: quantised
ones, and those that wait in main memory, serve as well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.lycoris_utils import LycorisConfig, LycorisLayer, LycorisTuner
from peft.utils.other import get_pattern_key
from torch import Tensor, nn


@dataclass
class OutputRotationConfig(LycorisConfig):
    """PEFT's fields, and the size of the blocks."""

    r: int = 16
    """Output channels that turn together: the largest divisor of a layer's that is no larger counts, see
    `block_size`."""
    target_modules: Any = None
    """A pattern that the whole path of a layer matches."""
    exclude_modules: Any = None


def block_size(channels: int, most: int) -> int:
    """The size of the blocks that LyCORIS would choose: at most `most`, and not larger than there are blocks.

    Args:
        channels: The layer's output channels.
        most: Channels that turn together, at most.
    """
    return max(size for size in range(1, min(most, math.isqrt(channels)) + 1) if channels % size == 0)


class OutputRotation(nn.Module, LycorisLayer):  # type: ignore[misc]  # PEFT's classes of layers are untyped
    """A linear or convolution layer with its outputs turned.

    Args:
        base_layer: The frozen layer.
        adapter_name: PEFT's name of the adapter.
        config: Not read; PEFT passes it.
        r: Channels that turn together, at most.

    Raises:
        TypeError: the number of output channels has no divisor of that size.
    """

    adapter_layer_names: tuple[str, ...] = ("oft_blocks",)

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: OutputRotationConfig, r: int) -> None:
        super().__init__()
        LycorisLayer.__init__(self, base_layer)
        self.oft_blocks = nn.ParameterDict({})
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, r, 0.0)

    @property
    def _available_adapters(self) -> set[str]:
        return set(self.oft_blocks)

    def update_layer(self, adapter_name: str, r: int, alpha: float, **kwargs: Any) -> None:
        """Make the blocks, [number, size, size] of zeros, which turn nothing."""
        channels: Any = self.out_features
        size = block_size(channels, r)
        if size == 1:
            raise TypeError(f"{channels} output channels have no divisor from 2 to {min(r, math.isqrt(channels))}")
        self.r[adapter_name], self.alpha[adapter_name], self.scaling[adapter_name] = size, alpha, 1.0
        self.oft_blocks[adapter_name] = nn.Parameter(torch.zeros(channels // size, size, size))
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters)

    def turn(self, adapter_name: str) -> Tensor:
        """(R − I)ᵀ of each block in float32, [number, size, size].

        R − I = 2 Q · (I − Q)⁻¹, which loses no digits where Q = blocks − blocksᵀ is small.
        """
        blocks = self.oft_blocks[adapter_name].float()
        skew = blocks - blocks.transpose(-1, -2)
        # I − Q can always be inverted, and `solve` would wait for a card to say so.
        return torch.linalg.solve_ex(torch.eye(skew.shape[-1], device=skew.device) - skew, 2 * skew)[0]

    def get_delta_weight(self, adapter_name: str, **_: Any) -> Tensor:
        """W' − W, in the weight's shape."""
        weight: Any = self.get_base_layer().weight
        turn = self.turn(adapter_name)
        rows = weight.float().reshape(*turn.shape[:2], -1)
        return torch.einsum("kni,knm->kmi", rows, turn).reshape(weight.shape).to(weight.dtype)

    def forward(self, inputs: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """R · W · x + b, as what the layer computes and what the rotation adds to it."""
        result: Tensor = self.base_layer(inputs, *args, **kwargs)
        if self.disable_adapters or self.merged:
            return result
        base: Any = self.get_base_layer()
        axis = 1 if isinstance(base, nn.Conv2d) else result.dim() - 1
        outputs = result
        if base.bias is not None:
            bias = base.bias.to(result.device, result.dtype)
            outputs = result - bias.reshape(-1, *[1] * (result.dim() - 1 - axis))
        turn = self.turn(self.active_adapters[0]).to(result.dtype)
        blocks = outputs.unflatten(axis, turn.shape[:2])
        added = (torch.einsum("bknhw,knm->bkmhw", blocks, turn) if axis == 1 and result.dim() == 4 else
                 torch.einsum("...kn,knm->...km", blocks, turn))
        return result + added.flatten(axis, axis + 1)

    def create_adapter_parameters(self, adapter_name: str, r: int, **kwargs: Any) -> None:
        """Nothing beyond `update_layer`."""

    def reset_adapter_parameters(self, adapter_name: str) -> None:
        """Turn nothing."""
        nn.init.zeros_(self.oft_blocks[adapter_name])

    def _get_delta_activations(self, adapter_name: str, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        raise NotImplementedError("what is added depends on the layer's output: see `forward`")


class OutputRotationModel(LycorisTuner):
    """Puts `OutputRotation` on a module's layers."""

    prefix: str = "oft_"
    tuner_layer_cls = OutputRotation
    target_module_mapping = {}  # noqa: RUF012 (PEFT's; here layers are always named)
    layers_mapping = {nn.Conv2d: OutputRotation, nn.Linear: OutputRotation}  # noqa: RUF012 (PEFT's)

    def _create_and_replace(self, config: Any, adapter_name: str, target: Any, target_name: str, parent: nn.Module,
                            current_key: str) -> None:
        size = config.rank_pattern.get(get_pattern_key(config.rank_pattern.keys(), current_key), config.r)
        made = self._create_new_module(config, adapter_name, target, r=size)
        self._replace_module(parent, target_name, made, target)
