"""Write a model as a single-file checkpoint in the original layout."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from ..checkpoint.entry import Entry, FileRange
from ..checkpoint.header import TORCH_NAMES
from ..errors import AtelierError
from ..files import atomic_file, check_apart
from ..models.families import Family
from ..models.keymap import KeyTable
from ..models.layout import Component, ModelLayout, read_layout, surplus_tokens
from ..models.lazy_tensor import LazyTensor, to_original
from ..models.noise_schedule import EDM_TENSORS
from ..models.prediction import V_MARKERS, V_SIGNS, ZERO_SNR_MARKER, Prediction, read_kind, read_prediction
from ..models.prefixes import (
    EMA_PREFIX,
    TEXT_PREFIXES,
    TEXT_SURPLUS,
    UNET_PREFIX,
    VAE_PREFIX,
    VAE_SURPLUS,
    diffusers_table,
    prefix_of,
)
from ..models.text_keys import TOKEN_TABLE, VOCABULARY
from ..progress import Progress
from .options import ConvertOptions, Merge
from .report import ConversionReport
from .scaled import as_scaled, becomes_scaled
from .streaming import Rounding, Stream, cast, check_space, merged, written_dtype, written_size

NOTABLE_ROUNDING = 0.05
"""The share of a merged LoRA that may be rounded away without a word. float16 stays below it."""


def to_checkpoint(source: Path, destination: Path, options: ConvertOptions | None = None,
                  progress: Progress | None = None, *, merge: Merge | None = None) -> ConversionReport:
    """Convert a diffusers folder (or another checkpoint) to a single `.safetensors` file in the original layout.

    Text encoders are written with `text_model.` in their names, as every reader expects. A checkpoint as the source
    is rewritten: pruned, cast, or turned from a pickle into safetensors.

    Args:
        source: The folder or file.
        destination: The file to write; what stood there stays until the new one is whole.
        options: Precision, pruning, prediction type.
        progress: Receives progress; may interrupt.
        merge: Changes tensors while they are written, such as by adding a LoRA.

    Raises:
        AtelierError: the source is no supported model, or the disk is full.
    """
    options, progress = options or ConvertOptions(), progress or Progress()
    start = time.monotonic()
    if destination.suffix.lower() != ".safetensors":
        raise AtelierError(f"{destination.name} does not end in .safetensors.",
                           "Checkpoints are written in that format alone.")
    if destination.is_dir():
        raise AtelierError(f"{destination} is a folder.", "Choose another destination.")
    layout = read_layout(source)
    check_apart(destination, layout.source.files)
    prediction = read_prediction(layout, options.prediction_type)
    kind = read_kind(layout, prediction)
    tensors: dict[str, LazyTensor] = {}
    rounding, precision, scaled = Rounding(), options.precision, list[str]()
    for component in layout.components.values():
        table, prefix = checkpoint_names(component, layout.family)
        parts = _without_surplus(component.tensors)
        if merge is not None:
            parts = merged(parts, component.folder, merge, options.precision, rounding)
        original = to_original(table, parts, component.folder)
        tensors |= {prefix + name: tensor for name, tensor in original.items()}
        if precision == "fp8" and component.folder == "unet":
            scaled = [prefix + name for name, tensor in original.items() if becomes_scaled(name, tensor.shape)]
    contradicting = [name for name in layout.unused if name in V_SIGNS and prediction.type != "v_prediction"]
    unused = [name for name in layout.unused if name not in contradicting]
    kept = [name for name in unused if not options.prune or _is_part_of_model(name)]
    if not source.is_dir():
        tensors |= {name: LazyTensor.of(layout.source.entries[name]) for name in kept}
    tensors |= markers(layout, prediction)
    dtype = written_dtype(next(iter(layout.unet.tensors.values())).dtype, precision)
    if scaled:
        rest = {name: tensor for name, tensor in tensors.items() if name not in set(scaled)}
        dtype, precision = "F8_E4M3", "keep"
        tensors = as_scaled({**tensors, **cast(rest, options.precision)}, scaled)
    size = written_size(tensors, precision)
    check_space(destination, size)
    with atomic_file(destination) as part:
        metadata = _metadata(layout, prediction, destination)
        written = Stream(progress, size).write(part, tensors, precision, metadata)
    return ConversionReport(
        source=source, destination=destination, family=layout.family.key, name=kind.name,
        prediction_type=prediction.type, prediction_because=prediction.because, dtype=TORCH_NAMES[dtype],
        parameters=layout.parameters, tensors=len(tensors), dropped=tuple(name for name in unused if name not in kept),
        bytes=written, seconds=time.monotonic() - start, advice=kind.advice,
        notes=tuple(_notes(layout, contradicting, rounding, TORCH_NAMES[dtype], len(scaled))))


def _without_surplus(tensors: Mapping[str, LazyTensor]) -> Mapping[str, LazyTensor]:
    """A component's tensors with CLIP's own tokens only: the host builds the text encoder for those."""
    table = tensors.get(TOKEN_TABLE)
    if table is None or table.shape[0] <= VOCABULARY:
        return tensors
    (stored,) = table.parts
    return {**tensors, TOKEN_TABLE: LazyTensor.of(stored.rows(0, VOCABULARY))}


def checkpoint_names(component: Component, family: Family) -> tuple[KeyTable, str]:
    """The key table of a component, and the prefix of its tensors in a checkpoint of this family."""
    table = diffusers_table(component.folder, component.tensors.keys(), family)
    return table, prefix_of(component.folder, family)


def _is_part_of_model(name: str) -> bool:
    """Whether a tensor that no component uses is kept when pruning: SD2's last layer, CLIP's logit scale, a marker."""
    texts = [text.prefix for text in TEXT_PREFIXES]
    surplus = [EMA_PREFIX, *(VAE_PREFIX + part for part in VAE_SURPLUS),
               *(prefix + part for prefix in texts for part in TEXT_SURPLUS)]
    if name.startswith(tuple(surplus)) or name.endswith("position_ids"):
        return False
    return name.startswith((UNET_PREFIX, VAE_PREFIX, *texts)) or name in (*V_SIGNS, *EDM_TENSORS)


def _notes(layout: ModelLayout, contradicting: list[str], rounding: Rounding, dtype: str, scaled: int) -> list[str]:
    notes = []
    if scaled:
        notes.append(f"{scaled} matrices of the UNet's transformer blocks are scaled float8, all else is float16")
    if layout.missing:
        notes.append(f"The source has no {layout.missing_words}, so the file has none either: load them from another "
                     "file beside it")
    notes += [f"Left out {surplus} tokens of the {name} beyond CLIP's {VOCABULARY}, which no tokenizer of ComfyUI knows"
              for name, surplus in surplus_tokens(layout).items()]
    if contradicting:
        notes.append(f"Left out {', '.join(contradicting)}: readers would take the model for v-prediction")
    if rounding.share > NOTABLE_ROUNDING:
        notes.append(f"Rounding to {dtype} loses {rounding.share:.0%} of what the LoRA changes. "
                     "Precision fp16 or fp32 keeps it")
    return notes


def markers(layout: ModelLayout, prediction: Prediction) -> dict[str, LazyTensor]:
    """Empty tensors whose presence tells the host SDXL's prediction type; it writes them for other families as well."""
    if prediction.type != "v_prediction" or layout.family.key == "x4-upscaler":
        return {}
    empty = LazyTensor((0,), (Entry("F32", (0,), FileRange(layout.path, 0, 0)),))
    names = (V_MARKERS[0], ZERO_SNR_MARKER) if prediction.zero_terminal_snr else V_MARKERS[:1]
    stored = layout.source.entries.keys()
    return {} if V_MARKERS[1] in stored else {name: empty for name in names if name not in stored}


def _metadata(layout: ModelLayout, prediction: Prediction, destination: Path) -> Mapping[str, str]:
    """The source's metadata without its hashes, which no longer hold, and the modelspec 1.0.0 fields."""
    kept = {key: value for key, value in layout.source.metadata.items() if "hash" not in key and key != "format"}
    return {"modelspec.sai_model_spec": "1.0.0", "modelspec.architecture": layout.family.modelspec,
            "modelspec.title": destination.stem, **kept,
            "modelspec.prediction_type": "v" if prediction.type == "v_prediction" else "epsilon"}
