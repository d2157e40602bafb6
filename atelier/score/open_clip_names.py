"""Read a CLIP model that OpenCLIP or OpenAI saved, under the names of transformers' CLIPModel.

Source of the names: open_clip's `CLIP`, whose vision tower lies below `visual.` and whose text tower lies at the root.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..checkpoint.entry import Entry
from ..models.keymap import KeyTable, Match, Pair, Relation
from ..models.text_keys import BLOCK, layer_count, open_clip_table

_VISUAL = "visual."
_MARKS = (_VISUAL, "transformer.resblocks.")
_VISION_ENDS = (
    Pair("conv1", "vision_model.embeddings.patch_embedding"),
    Pair("class_embedding", "vision_model.embeddings.class_embedding"),
    Pair("positional_embedding", "vision_model.embeddings.position_embedding.weight"),
    # transformers' own spelling.
    Pair("ln_pre", "vision_model.pre_layrnorm"),
    Pair("ln_post", "vision_model.post_layernorm"),
    Pair("proj", "visual_projection.weight", Relation.TRANSPOSED))


def is_open_clip(names: Mapping[str, object]) -> bool:
    """Whether tensors have OpenCLIP's names."""
    return any(name.startswith(_MARKS) for name in names)


def as_transformers(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """The tensors under transformers' names. What CLIPModel does not have, such as OpenAI's `input_resolution`, is
    left out."""
    vision = {name.removeprefix(_VISUAL): entry for name, entry in entries.items() if name.startswith(_VISUAL)}
    text = {name: entry for name, entry in entries.items() if not name.startswith(_VISUAL)}
    return {**_renamed(text, open_clip_table(layer_count(text))),
            **_renamed(vision, _vision_table(layer_count(vision)))}


def _vision_table(layers: int) -> KeyTable:
    return KeyTable([*_VISION_ENDS, *(
        Pair(f"transformer.resblocks.{n}.{part.original}", f"vision_model.encoder.layers.{n}.{part.diffusers}",
             part.relation) for n in range(layers) for part in BLOCK)])


def _renamed(entries: Mapping[str, Entry], table: KeyTable) -> dict[str, Entry]:
    renamed: dict[str, Entry] = {}
    for name, entry in entries.items():
        if match := table.match_original(name):
            renamed |= dict(zip(match.diffusers, _parts(entry, match), strict=True))
    return renamed


def _parts(entry: Entry, match: Match) -> list[Entry]:
    if match.relation is Relation.TRANSPOSED:
        return [Entry(entry.dtype, entry.shape[::-1], lambda: entry.read().T.contiguous())]
    if match.relation is not Relation.STACKED:
        return [entry]
    rows = entry.shape[0] // len(match.diffusers)
    return [entry.rows(part * rows, (part + 1) * rows) for part in range(len(match.diffusers))]
