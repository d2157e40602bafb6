"""The request to a prompt writer and its result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import AtelierError
from .budget import TokenCount
from .client import Usage
from .examples import ExampleSet
from .fields import CLIP_BUDGET, NO_FIELDS, PromptFields, PromptStyle

if TYPE_CHECKING:
    from PIL.Image import Image

LONGEST_IDEA = 4000
"""Characters."""


@dataclass(frozen=True, kw_only=True)
class PromptRequest:
    """An idea and the options of its prompt.

    Raises:
        AtelierError: the idea is empty though there is no picture, or too long, or the budget is out of range.
    """

    idea: str
    style: str = ""
    """The picture's artistic style, in the user's words; empty leaves it to the writer."""
    prompt_style: PromptStyle = PromptStyle.TAGS
    fields: PromptFields = NO_FIELDS
    """Parts that the user fixed; the writer keeps them verbatim."""
    budget: int = CLIP_BUDGET
    """Maximum tokens of the positive and of the negative prompt; 0 is no limit."""
    examples: ExampleSet | None = None
    seed: int = 0
    picture: Image | None = None
    """A reference, mode RGB: the prompt shall give a picture like it. Only a model that sees can use it."""

    def __post_init__(self) -> None:
        if not self.idea.strip() and self.picture is None:
            raise AtelierError("The idea is empty.", "Type in a few words what the picture shows.")
        if len(self.idea) > LONGEST_IDEA:
            raise AtelierError(f"The idea is {len(self.idea)} characters long.",
                               f"Shorten it to {LONGEST_IDEA} characters.")
        if self.budget and not 8 <= self.budget <= 1000:
            raise AtelierError(f"The token budget is {self.budget}.", "Choose 0 for no limit, or between 8 and 1000.")


@dataclass(frozen=True, kw_only=True)
class WrittenPrompt:
    """A finished prompt, its source and its cost."""

    positive: str
    negative: str
    title: str
    tokens: TokenCount
    """Of the positive prompt, in the text encoder's tokens."""
    cost: Usage
    """Tokens and cost of the language model; zeros for the cache and the offline writer."""
    source: str
    """Who wrote it: "gpt-4o-mini at api.openai.com", "…, from the cache", "the offline writer, because …"."""
    cut: bool = False
    """Whether the positive or the negative prompt was cut to the budget."""
