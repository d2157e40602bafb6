"""SigLIP and SigLIP 2 models of one picture size, as transformers saves them (https://arxiv.org/abs/2502.14786).

Like CLIP they give embeddings of pictures and texts whose cosine is the score. Their training loss is a sigmoid of it
for each pair, so that the cosines are small: a match lies near 0.1.
"""

from __future__ import annotations

from pathlib import Path
from reprlib import repr as short
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from ..checkpoint.folder import component_entries
from ..errors import AtelierError
from ..json_files import read_json_object
from ..models.foreign_errors import explained
from .crop import ClipCrop
from .preprocess import Levels
from .scorer import ClipScorer
from .tokens import TokenizedText

if TYPE_CHECKING:
    from collections.abc import Sequence

_DO = "Download the whole folder of the model again, such as google/siglip2-base-patch16-224, or choose another model."
_HALF = (0.5, 0.5, 0.5)
SQUEEZED = "Pictures are squeezed to a square, as SigLIP was trained."


class SiglipScorer(ClipScorer):
    """A `ClipScorer` by a SigLIP model: texts are padded to the model's full length, the last position is pooled."""

    def tokens(self, text: str) -> TokenizedText:
        """Tokenize `text` for the model, in lower case."""
        if not text.strip():
            raise AtelierError("A text to score against is empty.", "Give the prompt the pictures were made from.")
        tokenizer: Any = self.tokenizer
        config: Any = self.model.config.text_config
        length = config.max_position_embeddings
        whole = tokenizer(text.lower(), truncation=False, verbose=False)["input_ids"]
        ids = tokenizer(text.lower(), padding="max_length", truncation=True, max_length=length)["input_ids"]
        if max(ids) >= config.vocab_size:
            raise AtelierError(f"The tokenizer of {self.name} makes token {max(ids)}, which the model does not know.",
                               _DO)
        used = min(len(whole), length)
        return TokenizedText(ids=tuple(ids), used=used, cut=len(whole) - used)

    def _padded(self, texts: Sequence[str]) -> torch.Tensor:
        return torch.tensor([self.tokens(text).ids for text in texts])


def is_siglip(path: Path) -> bool:
    """Whether `path` is a folder whose configuration says SigLIP."""
    config = _config_file(path)
    if not path.is_dir() and path.name != "model.safetensors":
        return False
    return config.is_file() and str(read_json_object(config, _DO).get("model_type", "")).startswith("siglip")


def open_siglip(path: Path, *, device: torch.device | str, dtype: torch.dtype, crop: ClipCrop,
                chunk: int) -> ClipScorer:
    """A scorer with the SigLIP model in the folder `path`.

    Args:
        path: The folder.
        device: Device to compute on.
        dtype: Precision to compute in.
        crop: "center" is squeezed too: that is what the model was trained with.
        chunk: Pictures per batch.

    Raises:
        AtelierError: a file is missing or damaged, or the model takes pictures of any size (NaFlex).
    """
    from transformers import AutoTokenizer, SiglipConfig, SiglipModel

    folder = _config_file(path).parent
    values, levels = read_json_object(folder / "config.json", _DO), _levels(folder)
    if values["model_type"] != "siglip":
        raise AtelierError(f"{folder.name} is a model of the kind {short(values['model_type'])}, which takes pictures "
                           "of any shape (NaFlex).",
                           "Choose a SigLIP of one picture size, such as siglip2-base-patch16-224.")
    if not (folder / "tokenizer.json").is_file():
        raise AtelierError(f"{folder.name} lacks tokenizer.json.",
                           "Choose a SigLIP 2, which has one, or download it again.")
    kind: Any = SiglipConfig
    with explained(f"The configuration of {folder.name}", _DO), torch.device("meta"):
        model: Any = SiglipModel(kind.from_dict(values))
    entries = component_entries(folder)
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    wrong = [name for name, shape in wanted.items() if name not in entries or entries[name].shape != shape]
    if wrong:
        raise AtelierError(f"{folder.name} lacks {wrong[0]}, or has it in another shape than its configuration says.",
                           _DO)
    model.load_state_dict({name: entries[name].read() for name in wanted}, assign=True)
    for part in (model.text_model.embeddings, model.vision_model.embeddings):
        count = part.position_embedding.num_embeddings
        part.register_buffer("position_ids", torch.arange(count)[None], persistent=False)
    with explained(f"The tokenizer of {folder.name}", _DO):
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    crop = ClipCrop.SQUASH if crop is ClipCrop.CENTER else crop
    scorer = SiglipScorer(model.eval().to(device=device, dtype=dtype), tokenizer, folder.name, crop=crop, chunk=chunk,
                          note=SQUEEZED if crop is ClipCrop.SQUASH else "")
    scorer.levels = levels
    return scorer


def _config_file(path: Path) -> Path:
    """Of the model's own folder; a single file among others has none."""
    return path / "config.json" if path.is_dir() else path.with_name("config.json")


def _levels(folder: Path) -> Levels:
    """Filter, mean and deviation that the folder states; else those of the first SigLIP."""
    file = folder / "preprocessor_config.json"
    values = read_json_object(file, _DO) if file.is_file() else {}
    try:
        mean, std = (tuple(map(float, values.get(name, _HALF))) for name in ("image_mean", "image_std"))
        resample = Image.Resampling(int(values.get("resample", Image.Resampling.BICUBIC)))
        if len(mean) != 3 or len(std) != 3 or not all(std):
            raise ValueError("three numbers are needed, none of them 0 for the deviation")
    except (TypeError, ValueError) as error:
        raise AtelierError(f"{file} cannot be used ({error}).", _DO) from error
    return Levels(mean, std, resample)
