"""Conditioning for the host's models: what a CLIP gives for a caption, kept in the cache and handed to the network by
the host's own rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import comfy.model_base
import torch
from torch import Tensor

from ....atelier.dataset.store import Row
from ....atelier.errors import AtelierError

_TEXT, _NUMBER = "text.", "number."
"""What the rows' names of tensors and of single numbers begin with; beside them is "time_ids" of the picture."""


def encode_caption(clip: Any, caption: str) -> Row:
    """All that a CLIP says of a caption, as the host's own encoder nodes get it.

    Raises:
        AtelierError: there is something among it that is neither tensor nor number.
    """
    row: Row = {}
    with torch.inference_mode():
        found = clip.encode_from_tokens(clip.tokenize(caption), return_pooled=True, return_dict=True)
    for name, value in found.items():
        if isinstance(value, Tensor):
            row[_TEXT + name] = value.to("cpu").clone()  # out of inference mode, so that it can be trained with
        elif isinstance(value, bool | int | float):
            row[_NUMBER + name] = torch.tensor(value)
        elif value is not None:
            raise AtelierError(f"The text encoder gives {name} as {type(value).__name__}, which cannot be kept.",
                               "Train with another text encoder.")
    return row


def network_inputs(model: Any, row: Mapping[str, Tensor], noisy: Tensor, guidance: float | None) -> dict[str, Any]:
    """The host's conditions (`comfy.conds`) of one sample, by the name of the network's argument.

    Args:
        model: The host's `BaseModel`.
        row: From `encode_caption`, with "time_ids".
        noisy: [1, C, …].
        guidance: The strength of guidance that a distilled model is told; None: as the host does by default.
    """
    given: dict[str, Any] = {name.removeprefix(_TEXT): value for name, value in row.items() if name.startswith(_TEXT)}
    given |= {name.removeprefix(_NUMBER): value.item() for name, value in row.items() if name.startswith(_NUMBER)}
    given["cross_attn"] = given.pop("cond")
    given.setdefault("pooled_output", None)
    scale = model.latent_format.spacial_downscale_ratio
    given |= {"noise": noisy, "device": noisy.device, "prompt_type": "positive",
              "width": noisy.shape[-1] * scale, "height": noisy.shape[-2] * scale}
    if isinstance(model, comfy.model_base.SDXL) and "time_ids" in row:
        names = ("height", "width", "crop_h", "crop_w", "target_height", "target_width")
        given |= dict(zip(names, row["time_ids"].tolist(), strict=True))
    if guidance is not None:
        given["guidance"] = guidance
    return {name: condition.process_cond(batch_size=1, area=None)
            for name, condition in model.extra_conds(**given).items()}


def batches(samples: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """The samples' indices in groups that the network can take together: of texts of one length, say."""
    groups: list[list[int]] = []
    for index, sample in enumerate(samples):
        for group in groups:
            if _alike(samples[group[0]], sample):
                group.append(index)
                break
        else:
            groups.append([index])
    return groups


def _alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        type(one[name]) is type(other[name]) and _size(one[name]) == _size(other[name])
        and one[name].can_concat(other[name]) for name in one)


def _size(condition: Any) -> Any:
    """Texts of different lengths are not repeated to a common one, as the host does for UNets: the loss of a picture
    must not depend on its neighbours in the batch."""
    return getattr(condition.cond, "shape", None)
