"""Load CLIP models: a folder as transformers saves it, or a single weights file."""

from __future__ import annotations

from pathlib import Path
from reprlib import repr as short
from typing import TYPE_CHECKING, Any

import torch

from ..checkpoint.entry import Entry
from ..checkpoint.folder import component_entries
from ..checkpoint.source import open_file
from ..errors import AtelierError
from ..json_files import read_json_object
from ..models.foreign_errors import explained
from .config import STATED, config_of
from .crop import ClipCrop
from .open_clip_names import as_transformers, is_open_clip
from .scorer import ClipScorer
from .siglip import is_siglip, open_siglip
from .tokens import clip_tokenizer

if TYPE_CHECKING:
    from transformers import CLIPModel

_DO = "Download the CLIP model again, or choose another."
_WEIGHTS = "model.safetensors"
_ASSUMED = ("There is no config.json with the model: activation {} was assumed, right for OpenAI's models up to L/14 "
            "and LAION's H and bigG.")


def open_scorer(path: Path, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32,
                crop: ClipCrop = ClipCrop.CENTER, chunk: int = 16) -> ClipScorer:
    """A scorer with the CLIP model at `path`. ViT-B/32 up to bigG, LongCLIP, PickScore and HPSv2.1 differ in shapes
    alone; a folder of SigLIP 2 has its own loader.

    Args:
        path: A folder with model.safetensors (or its shards) and config.json, or one weights file, with the names of
            transformers or of OpenCLIP. The configuration of a single file is read from a file beside it of the same
            name, ending in `.json`.
        device: Device to compute on.
        dtype: Precision to compute in; cosines are always float32.
        crop: How pictures are made square.
        chunk: Pictures per batch.

    Raises:
        AtelierError: no readable file, an incomplete CLIP model, or missing tensors.
    """
    if is_siglip(path):
        return open_siglip(path, device=device, dtype=dtype, crop=crop, chunk=chunk)
    model: Any
    model, note = load_clip(path)
    return ClipScorer(model.to(device=device, dtype=dtype), clip_tokenizer(_folder_of(path)), model_name(path),
                      crop=crop, chunk=chunk, note=note)


def load_clip(path: Path) -> tuple[CLIPModel, str]:
    """The model on CPU in its stored precision, and a note on assumed settings ("" if none).

    Raises:
        AtelierError: no readable file, an incomplete CLIP model, or tensors missing or of wrong shapes.
    """
    from transformers import CLIPConfig, CLIPModel

    name, entries, known = model_name(path), _entries(path), _known_config(path)
    shapes = {key: entry.shape for key, entry in entries.items()}
    with explained(f"The configuration of {name}", _DO), torch.device("meta"):  # skips random initialisation
        config: Any = CLIPConfig(**config_of(shapes, known, name))
        model: Any = CLIPModel(config)
    wanted = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items() if key != "logit_scale"}
    wrong = [key for key, shape in wanted.items() if shapes.get(key, shape) != shape]
    if wrong:
        raise AtelierError(f"{name} has {wrong[0]} in another shape than the rest of the model needs: "
                           f"{shapes[wrong[0]]}, not {wanted[wrong[0]]}.",
                           "Download it again, or choose another CLIP model.")
    model.load_state_dict({key: entry.read() for key, entry in entries.items() if key in wanted}, strict=False,
                          assign=True)
    missing = [key for key, tensor in model.state_dict().items() if tensor.is_meta and key != "logit_scale"]
    if missing:
        raise AtelierError(f"{name} lacks {len(missing)} tensors, {missing[0]} first.",
                           "Download it again, or choose another CLIP model.")
    # Not used for scores, absent from some files, and of another shape in others.
    model.logit_scale = torch.nn.Parameter(torch.zeros(()), requires_grad=False)
    _number_positions(model)
    return model.eval(), "" if known else _ASSUMED.format(config.vision_config.hidden_act)


def model_name(path: Path) -> str:
    """Display name of the model at `path`: its folder's name, or its file's without the ending."""
    return (_folder_of(path) or path.with_suffix("")).name


def _number_positions(model: CLIPModel) -> None:
    """Fill the buffers of position ids, which files may lack."""
    for part in (model.text_model.embeddings, model.vision_model.embeddings):
        count = part.position_embedding.num_embeddings
        part.register_buffer("position_ids", torch.arange(count)[None], persistent=False)


def _folder_of(path: Path) -> Path | None:
    """The model's own folder; None for a single file among others."""
    if path.is_dir():
        return path
    return path.parent if path.name == _WEIGHTS else None


def _entries(path: Path) -> dict[str, Entry]:
    try:
        entries = component_entries(path) if path.is_dir() else dict(open_file(path).entries)
    except AtelierError as error:
        raise AtelierError(error.what, "Choose a whole CLIP model, or download it again.") from error
    return as_transformers(entries) if is_open_clip(entries) else entries


def _known_config(path: Path) -> dict[str, Any] | None:
    """The model's own configuration with every default filled in; None if it has none."""
    from transformers import CLIPConfig

    folder = _folder_of(path)
    file = folder / "config.json" if folder else path.with_suffix(".json")
    kind: Any = CLIPConfig
    return _stated(kind, file) if file.is_file() else None


def _stated(kind: Any, file: Path) -> dict[str, Any]:
    values = read_json_object(file, _DO)
    parts: dict[str, dict[str, Any]] = {}
    for part in ("text_config", "vision_config", "text_config_dict", "vision_config_dict"):
        stated = values.get(part)
        if not isinstance(stated or {}, dict):
            raise AtelierError(f"{file}: {part} is {short(stated)}, not a table.", _DO)
        if stated is not None:
            parts[part] = {name: value for name, value in stated.items() if name in STATED}
    with explained(str(file), _DO):
        return kind.from_dict(parts).to_dict()
