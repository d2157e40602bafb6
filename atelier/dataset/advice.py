"""What a person should know of a training set before it is trained on."""

from __future__ import annotations

from .types import TrainingSet


def advice(data: TrainingSet) -> list[str]:
    """Sentences for the node that reads pictures and for the trainer's report; empty where all is usual."""
    sentences = list(data.notes)
    if sum(not sample.prior for sample in data.samples) == 1:
        sentences.append("There is only one picture: what is learnt is that picture, and not what it shows. Ten to "
                         "thirty different ones are usual.")
    return sentences
