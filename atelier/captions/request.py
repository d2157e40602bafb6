"""What captions are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ..errors import AtelierError
from ..prompts.fields import CLIP_BUDGET

LONGEST_INSTRUCTION = 4000
"""Characters."""
AT_ONCE = 4
"""Questions at a time unless told otherwise."""
MOST_AT_ONCE = 32
"""Questions that wait for the server at a time."""


class CaptionStyle(str, Enum):
    """How a caption is worded."""

    SENTENCE = "sentence"
    """One or two plain sentences: for SDXL, and for photographs."""
    TAGS = "tags"
    """Comma-separated tags in the order of booru sites: for SD1.5, and for anime models on SDXL."""
    SHORT = "short"
    """One phrase of at most a dozen words."""
    OWN = "own"
    """What `CaptionRequest.instruction` says, and nothing else."""


class Existing(str, Enum):
    """What happens to captions that pictures have."""

    KEEP = "keep"
    """They stay, and the model is not asked about these pictures."""
    REPLACE = "replace"
    """They are written anew."""


@dataclass(frozen=True, kw_only=True)
class CaptionRequest:
    """How pictures shall be described.

    Raises:
        AtelierError: a value is out of range, or a style of one's own has no instruction; the message names the field.
    """

    style: CaptionStyle = CaptionStyle.SENTENCE
    instruction: str = ""
    """Further wishes in the user's words; with the style "own" the only rule."""
    trigger: str = ""
    """A word that stands for what is learnt: put in front of each caption, and kept out of the description."""
    forbidden: tuple[str, ...] = ()
    """Words that no caption holds, in any case."""
    tokens: int = CLIP_BUDGET
    """Most tokens of a caption, the trigger word included; 0 is no limit."""
    seed: int = 0

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "style", CaptionStyle(self.style))
        except ValueError as error:
            raise AtelierError(f"style is {self.style!r}.",
                               f"Choose {', '.join(style.value for style in CaptionStyle)}.") from error
        object.__setattr__(self, "trigger", self.trigger.strip())
        object.__setattr__(self, "forbidden", tuple(word.strip() for word in self.forbidden if word.strip()))
        if self.style is CaptionStyle.OWN and not self.instruction.strip():
            raise AtelierError("style is own, but there is no instruction.",
                               "Type what a caption shall say, or choose another style.")
        if len(self.instruction) > LONGEST_INSTRUCTION:
            raise AtelierError(f"The instruction is {len(self.instruction)} characters long.",
                               f"Shorten it to {LONGEST_INSTRUCTION} characters.")
        if self.tokens and not 8 <= self.tokens <= 1000:
            raise AtelierError(f"The token limit is {self.tokens}.", "Choose 0 for no limit, or between 8 and 1000.")
        if self.trigger.lower() in (word.lower() for word in self.forbidden):
            raise AtelierError(f"The trigger word {self.trigger!r} is among the forbidden words.",
                               "Take it out of one of them: the trigger word is put in front of each caption, and "
                               "already kept out of the description.")


def word_list(text: str) -> tuple[str, ...]:
    """Words or phrases that a person typed with commas or on lines of their own."""
    return tuple(word.strip() for line in text.splitlines() for word in line.split(",") if word.strip())
