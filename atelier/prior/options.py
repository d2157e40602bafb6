"""What prior-preservation pictures are wanted, and which each of them is."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..dataset.sizing import target_size
from ..dataset.types import Resolution, TrainingSet
from ..errors import AtelierError
from ..fields import check_text
from ..prompt_lines import prompt_lines
from ..sampling import MAX_SIDE, SamplingOptions

MAX_PICTURES = 10_000
"""More than any training has use for."""


@dataclass(frozen=True, kw_only=True)
class PriorOptions:
    """Pictures of what the model should not forget (DreamBooth, https://arxiv.org/abs/2208.12242, section 3.3: about
    200 pictures of the subject's class).

    Raises:
        AtelierError: a value is out of range; the message names the field.
    """

    count: int = 100
    prompt: str = ""
    """One prompt a line, used in turn, such as "a photo of a dog". Empty: the captions of the pictures that are trained
    on, without the trigger word."""
    negative: str = ""
    seed: int = 0
    """Of the first picture; each next one has the next."""
    steps: int = 20
    cfg: float = 7.0
    """Guidance scale; 1 leaves the negative prompt out."""

    def __post_init__(self) -> None:
        if not 1 <= self.count <= MAX_PICTURES:
            raise AtelierError(f"count of the prior pictures is {self.count}.",
                               f"Choose a whole number from 1 to {MAX_PICTURES}.")
        if not 0 <= self.seed < 2**63:
            raise AtelierError(f"seed of the prior pictures is {self.seed}.",
                               "Choose a whole number from 0 to 2^63 - 1.")
        check_text("The prompt of the prior pictures", self.prompt)
        check_text("The negative prompt of the prior pictures", self.negative)
        SamplingOptions(steps=self.steps, cfg=self.cfg)


@dataclass(frozen=True)
class PriorPicture:
    """One picture to draw."""

    prompt: str
    seed: int
    size: tuple[int, int]
    """(width, height) in pixels."""
    resolution: Resolution | None
    """The size policy that its sample gets; None is that of the training set."""


def prior_pictures(data: TrainingSet, options: PriorOptions) -> list[PriorPicture]:
    """The pictures of `options`, in the training sizes of the pictures of `data` in turn.

    Raises:
        AtelierError: there is no prompt, and the captions have nothing but the trigger word; or the training set holds
            prior pictures alone.
    """
    own = [sample for sample in data.samples if not sample.prior]
    if not own:
        raise AtelierError("The training set holds prior pictures alone.", "Give it pictures of what is to be learnt.")
    prompts = prompt_lines(options.prompt)
    if not prompts:
        prompts = tuple(without_trigger(sample.captions[0], data.trigger) for sample in own)
        if not any(prompts):
            raise AtelierError("The captions hold nothing but the trigger word, so there is no prompt for prior "
                               "pictures.", "Give a prompt for them, such as: a photo of a dog.")
        prompts = tuple(filter(None, prompts))
    pictures = []
    for index in range(options.count):
        sample = own[index % len(own)]
        width, height = (min(max(64, side), MAX_SIDE) for side in target_size(sample.size, data.resolution_of(sample)))
        pictures.append(PriorPicture(prompts[index % len(prompts)], options.seed + index, (width, height),
                                     sample.resolution))
    return pictures


def without_trigger(caption: str, trigger: str) -> str:
    """`caption` as one line without the word `trigger`, and without the comma and spaces that it leaves behind."""
    text = " ".join(caption.split())
    if not trigger:
        return text
    text = re.sub(rf"(?<!\w){re.escape(trigger)}(?!\w)", "", text, flags=re.IGNORECASE)
    parts = (" ".join(part.split()) for part in text.split(","))
    return ", ".join(part for part in parts if part)
