"""Predict how much people like a picture, by a linear head on a CLIP model's picture embeddings."""

from __future__ import annotations

from pathlib import Path

import torch

from ..checkpoint.source import open_file
from ..errors import AtelierError

_DO = ("Choose a file of linear layers on a CLIP model, such as sac+logos+ava1-l14-linearMSE.pth or "
       "sa_0_4_vit_l_14_linear.pth, which are for ViT-L/14.")
_MOST_LAYERS = 16


class AestheticHead:
    """y = W_n (… (W_1 e + b_1) …) + b_n with the unit embedding e of a picture, about 1 … 10.

    Published heads (github.com/christophschuhmann/improved-aesthetic-predictor and
    github.com/LAION-AI/aesthetic-predictor) are linear layers without activations between them, trained on people's
    ratings. Dropout, which they had in training, does nothing here.

    Args:
        layers: (weight [out, in], bias [out]) in order; the last gives one number.
        name: Of the file, in results.
    """

    def __init__(self, layers: list[tuple[torch.Tensor, torch.Tensor]], name: str) -> None:
        self.layers, self.name = layers, name

    @property
    def width(self) -> int:
        """Numbers of the embedding that it takes."""
        return self.layers[0][0].shape[1]

    def __call__(self, embeddings: torch.Tensor) -> list[float]:
        """The prediction for each of the unit `embeddings`, [N, width].

        Raises:
            AtelierError: they are of another width.
        """
        if embeddings.shape[1] != self.width:
            raise AtelierError(f"{self.name} takes embeddings of {self.width} numbers, and the CLIP model gives "
                               f"{embeddings.shape[1]}.",
                               "Choose the CLIP model that it was made for; most are for ViT-L/14, of 768 numbers.")
        values = embeddings.float()
        for weight, bias in self.layers:
            values = values @ weight.T + bias
        return values[:, 0].tolist()


def open_head(path: Path) -> AestheticHead:
    """The head in a weights file.

    Raises:
        AtelierError: the file cannot be read, or holds something else than linear layers that end in one number.
    """
    try:
        entries = dict(open_file(path).entries)
    except AtelierError as error:
        raise AtelierError(error.what, _DO) from error
    names = [name.removesuffix("weight") for name in entries if name.rsplit(".", 1)[-1] == "weight"]
    linear = {f"{name}{part}" for name in names for part in ("weight", "bias")}
    if not names or len(names) > _MOST_LAYERS or set(entries) != linear:
        raise AtelierError(f"{path.name} is no aesthetic head: it holds {len(entries)} tensors, {next(iter(entries))} "
                           "first, and not weights and biases of linear layers alone.", _DO)
    layers = [(entries[f"{name}weight"].read().float(), entries[f"{name}bias"].read().float())
              for name in sorted(names, key=_number)]
    width = None
    for weight, bias in layers:
        fits = weight.ndim == 2 and bias.shape == weight.shape[:1] and width in (None, weight.shape[1])
        if not fits:
            raise AtelierError(f"{path.name} is no aesthetic head: its layers do not follow each other.", _DO)
        width = weight.shape[0]
    if width != 1:
        raise AtelierError(f"{path.name} is no aesthetic head: it gives {width} numbers for a picture, not one.", _DO)
    return AestheticHead(layers, path.stem)


def _number(name: str) -> int:
    digits = [part for part in name.split(".") if part.isdecimal()]
    return int(digits[-1]) if digits else 0
