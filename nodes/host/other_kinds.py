"""Adapters that the host's own code does not read, or not as the programs that write them mean: IA3, OFTv2, OFT and
BOFT with a bound or with rescaled channels, and a LoKr with a core."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from comfy.weight_adapter import WeightAdapterBase

from ...atelier.lora.formats import read_state
from ...atelier.lora.keys import whole_others
from ...atelier.lora.other_adapter import BOFT, IA3, OFT, OFT_INPUT, OtherAdapter

if TYPE_CHECKING:
    from torch import Tensor

_KINDS = (IA3, OFT, BOFT, OFT_INPUT)


class OtherKind(WeightAdapterBase):
    """A patch that computes an `OtherAdapter`. The host makes such patches anew from `loaded_keys` and `weights`."""

    name = "atelier"

    def __init__(self, loaded_keys: set[str], weights: tuple[Any, ...]) -> None:
        """Take kind, alpha, and the tensors' roles and the tensors in turn."""
        self.loaded_keys = loaded_keys
        self.weights = weights  # type: ignore[assignment]  # the host's own hold other things than tensors as well

    def calculate_weight(self, weight: Tensor, key: str, strength: float, strength_model: float, offset: Any,
                         function: Any, intermediate_dtype: Any = None, original_weight: Any = None) -> Tensor:
        """Change the weight in place, as the host's kinds do."""
        kind, alpha, *rest = self.weights
        adapter = OtherAdapter(kind, dict(zip(rest[::2], rest[1::2], strict=True)), alpha)
        change = adapter.applied(weight, strength) - weight.float()
        weight += function(change.to(weight.dtype))
        return weight


def split(state: Mapping[str, Tensor], keys: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The patches of these kinds by the model's keys, and what of the state is left for the host.

    Args:
        state: A LoRA's.
        keys: The model's by the names of layers in LoRA files, as the host lists them.
    """
    patches: dict[str, Any] = {}
    left = dict(state)
    for kind, own in whole_others(state, "unet").values():
        if kind in _KINDS or "lokr_t2" in own:
            (adapter,) = read_state({key: state[key] for key in own.values()}).values()
            stem = next(key.removesuffix(f".{role}") for role, key in own.items())
            place = keys.get(stem)
            if place is not None and isinstance(adapter, OtherAdapter):
                flat = [part for item in adapter.tensors.items() for part in item]
                patches[place] = OtherKind(set(own.values()), (adapter.kind, adapter.alpha, *flat))
                left = {key: tensor for key, tensor in left.items() if key not in own.values()}
    return patches, left
