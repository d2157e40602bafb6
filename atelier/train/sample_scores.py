"""Scores of sample pictures, which show overfitting: fidelity falls while likeness still rises.

Fidelity is the mean cosine of each picture with its own prompt; likeness the mean cosine of each picture with the
training pictures; both of the embeddings of one CLIP model (see `atelier.score`). The base model's pictures of the same
prompts and seeds are the control that both are read against.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from ..dataset.types import TrainingSet
from ..errors import AtelierError
from ..pictures.decode import read_picture
from ..progress import Progress
from .request.outputs import NO_SCORE
from .request.recipe import SCORES
from .request.request import TrainRequest
from .run_folder import RoundScore

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

MOST_REFERENCES = 64
"""Of more training pictures, so many are compared with, evenly spread over the set."""


def check_monitor(request: TrainRequest) -> None:
    """Refuse a score as monitor where nothing is scored.

    Raises:
        AtelierError: there is no sample prompt, or no model to score with.
    """
    monitor, samples = request.validation.monitor, request.samples
    if monitor in SCORES and not samples.scored:
        lacks = "score_model is none" if samples.score_model == NO_SCORE else "there is no sample prompt"
        raise AtelierError(f"monitor is {monitor!r}, but {lacks}: no samples are scored.",
                           "Choose a score_model and write a sample_prompt, or choose monitor \"validation\".")


class SampleScorer:
    """Scores rounds of samples. The model computes on the processor, where it takes nothing from the training, and is
    loaded for each round.

    Args:
        model: Path of a CLIP model.
        data: Its pictures are compared with, but for those of prior preservation.
    """

    def __init__(self, model: Path, data: TrainingSet) -> None:
        # In a set of prior pictures alone, those are what is learnt.
        own = [sample.image for sample in data.samples if not sample.prior] or [s.image for s in data.samples]
        self.model = model
        self.references = own[::-(-len(own) // MOST_REFERENCES)]
        self._encoded: Tensor | None = None

    def __call__(self, pictures: Sequence[Image], texts: Sequence[str], progress: Progress) -> list[RoundScore]:
        """The scores of each of `pictures`, drawn of the text of the same index.

        Raises:
            AtelierError: the model cannot be loaded, or a training picture cannot be read.
        """
        from ..score.load import open_scorer

        if not pictures:
            return []
        scorer = open_scorer(self.model)
        if self._encoded is None:
            progress.phase("scoring", len(self.references))
            self._encoded = scorer.encode_pictures([read_picture(path) for path in self.references], progress)
        images = scorer.encode_pictures(pictures)
        fidelity = (images * scorer.encode_texts(texts)).sum(dim=-1).tolist()
        likeness = (images @ self._encoded.T).mean(dim=-1).tolist()
        return [RoundScore(*each) for each in zip(fidelity, likeness, strict=True)]


def mean_score(scores: Sequence[RoundScore]) -> RoundScore:
    """The score of a round, from those of its pictures."""
    return RoundScore(fidelity=fmean(score.fidelity for score in scores),
                      likeness=fmean(score.likeness for score in scores))
