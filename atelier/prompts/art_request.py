"""The request for random art prompts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import AtelierError
from .distinct import stems

CATEGORIES = ("animal", "landscape", "object", "cityscape", "nature", "space", "abstract")
MOST_PROMPTS = 1024


@dataclass(frozen=True)
class ArtRequest:
    """The number of prompts and their categories.

    Raises:
        AtelierError: a category is unknown or missing, or the count is out of range.
    """

    count: int
    categories: tuple[str, ...] = CATEGORIES
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = [name for name in self.categories if name not in CATEGORIES]
        if unknown or not self.categories:
            raise AtelierError(f"categories holds {unknown[0]!r}." if unknown else "No category is chosen.",
                               f"Choose from {', '.join(CATEGORIES)}.")
        if not 1 <= self.count <= MOST_PROMPTS:
            raise AtelierError(f"The count of prompts is {self.count}.", f"Choose between 1 and {MOST_PROMPTS}.")

    def shares(self) -> dict[str, int]:
        """Prompts for each category, spread evenly; the first ones get the remainder."""
        each, more = divmod(self.count, len(self.categories))
        return {name: each + (index < more) for index, name in enumerate(self.categories)}


def category_in(text: str, categories: Iterable[str]) -> str | None:
    """The one of `categories` that `text` names, in the plural or with other words ("Animals", "abstract art"), if any.

    A text that names several names none.
    """
    words = stems(text)
    named = [category for category in categories if stems(category) <= words]
    return named[0] if len(named) == 1 else None
