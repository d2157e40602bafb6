"""The three definitions of "CLIP score", all functions of one cosine."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum


class Definition(str, Enum):
    """Which function of the cosine is reported."""

    COSINE = "cosine"
    HESSEL = "hessel"
    TORCHMETRICS = "torchmetrics"

    def __call__(self, cosine: float) -> float:
        """The score of a picture and a text whose CLIP embeddings have this cosine."""
        return _FUNCTIONS[self](cosine)


def plain_cosine(cosine: float) -> float:
    """cos(E_image, E_text), -1 … 1: what CLIP was trained to maximise (Radford et al. 2021, arXiv:2103.00020, fig. 3).

    Matching pairs lie near 0.25 … 0.35 for OpenAI's models.
    """
    return cosine


def hessel(cosine: float) -> float:
    """2.5 · max(cos, 0), 0 … 2.5: CLIPScore as first published (Hessel et al. 2021, arXiv:2104.08718, eq. 1).

    The paper uses ViT-B/32 and puts "A photo depicts " before each text.
    """
    return 2.5 * max(cosine, 0.0)


def torchmetrics(cosine: float) -> float:
    """max(100 · cos, 0), 0 … 100: the definition in the documentation of torchmetrics' `CLIPScore`."""
    return max(100.0 * cosine, 0.0)


_FUNCTIONS: dict[Definition, Callable[[float], float]] = {
    Definition.COSINE: plain_cosine, Definition.HESSEL: hessel, Definition.TORCHMETRICS: torchmetrics,
}
