"""Likeness by a model of pictures alone, DINO: it sees shapes, parts and textures where CLIP sees what words say.

DINO score: the cosine of the class tokens of two pictures, as DreamBooth measures how well a subject is kept
(https://arxiv.org/abs/2208.12242, section 4.2, there ViT-S/16 DINO).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from reprlib import repr as short
from typing import Any

import torch
from PIL import Image

from ..errors import AtelierError
from ..json_files import read_json_object
from ..models.foreign_errors import explained
from ..progress import Progress
from .crop import ClipCrop
from .preprocess import Levels, pixel_values

CLASSES = {"vit": "ViTModel", "dinov2": "Dinov2Model", "dinov2_with_registers": "Dinov2WithRegistersModel",
           "dinov3_vit": "DINOv3ViTModel"}
"""transformers' classes by the `model_type` of a folder's configuration: DINO, DINOv2, DINOv3."""
LEVELS = Levels((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Of ImageNet, which all of them were trained with."""
SIZE = 224
_DO = "Choose a folder of DINO, DINOv2 or DINOv3, such as facebook/dinov2-base, or download it again."
_CHUNK = 16


class PictureModel:
    """Embeds pictures by a vision transformer's class token.

    Args:
        model: transformers' model, on its device.
        name: In results.
    """

    def __init__(self, model: Any, name: str) -> None:
        self.model, self.name = model, name

    def likeness(self, pictures: Sequence[Image.Image], references: Sequence[Image.Image], progress: Progress
                 ) -> torch.Tensor:
        """Mean cosine of each picture with all references, [len(pictures)], -1 … 1."""
        progress.phase("encoding", len(pictures) + len(references))
        embeddings = self.encode([*pictures, *references], progress)
        return (embeddings[:len(pictures)] @ embeddings[len(pictures):].T).mean(dim=1)

    @torch.inference_mode()
    def encode(self, pictures: Sequence[Image.Image], progress: Progress) -> torch.Tensor:
        """Unit embeddings of pictures, float32 [len(pictures), width] on CPU: the middle square at 224 pixels.

        Raises:
            AtelierError: an embedding is not finite.
        """
        done = []
        for start in range(0, len(pictures), _CHUNK):
            progress.check()
            pixels = pixel_values(pictures[start:start + _CHUNK], SIZE, ClipCrop.CENTER, LEVELS)
            pixels = pixels.to(self.model.device, self.model.dtype)
            tokens = self.model(pixel_values=pixels).last_hidden_state[:, 0].to("cpu", torch.float32)
            unit = tokens / tokens.norm(dim=-1, keepdim=True)
            if not unit.isfinite().all():
                raise AtelierError(f"{self.name} computed no numbers for a picture: its weights are damaged.", _DO)
            done.append(unit)
            progress.advance(min(start + _CHUNK, len(pictures)))
        return torch.cat(done)


def open_picture_model(folder: Path) -> PictureModel:
    """The model in a folder as transformers saves it.

    Raises:
        AtelierError: it is no such folder, or its files are incomplete or damaged.
    """
    import transformers

    file = folder / "config.json"
    if not file.is_file():
        raise AtelierError(f"{folder.name} is no folder with a config.json.", _DO)
    values = read_json_object(file, _DO)
    known = CLASSES.get(str(values.get("model_type")))
    kind: Any = getattr(transformers, known, None) if known else None
    if kind is None:
        raise AtelierError(f"{folder.name} is a model of the kind {short(values.get('model_type'))}, which is "
                           "no DINO.", _DO)
    # transformers knows the names that files of its former releases have.
    more: dict[str, Any] = {"add_pooling_layer": False} if known == "ViTModel" else {}
    with explained(f"The model {folder.name}", _DO):
        model, info = kind.from_pretrained(folder, local_files_only=True, use_safetensors=True, dtype=torch.float32,
                                           output_loading_info=True, **more)
    if lacking := sorted(info["missing_keys"]):
        raise AtelierError(f"{folder.name} lacks {len(lacking)} tensors, {lacking[0]} first.", _DO)
    return PictureModel(model.eval(), folder.name)
