"""Models compared on the same prompts and seeds: means, and a ranking that knows noise."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from functools import cached_property

from ..errors import AtelierError
from .significance import fewest_pairs, holm, sign_flip_p

SIGNIFICANT = 0.05


@dataclass(frozen=True, kw_only=True)
class ComparisonImage:
    """One picture of a comparison."""

    model: int
    """Place among the models, from 0."""
    prompt: int
    """Place among the prompts, from 0."""
    seed: int
    score: float | None = None
    """CLIP score; None where none was asked for."""
    seconds: float | None = None
    """Sampling and decoding."""
    peak: int | None = None
    """Bytes on the device at most; None where the device does not tell."""
    loading: bool = False
    """Whether `seconds` holds the model's way to the device too, as a model's first picture does."""


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """A model's place in the ranking."""

    model: int
    mean: float
    std: float
    """Standard deviation over the pictures (divided by n)."""
    n: int
    difference: float = 0.0
    """Mean minus that of the best."""
    p: float | None = None
    """Chance of such a difference by luck alone, corrected for the number of comparisons; None for the best itself."""
    needed: int = 0
    """Pairs without which not even the clearest difference among so many models would show."""

    @property
    def verdict(self) -> str:
        """What the difference to the best is worth."""
        if self.p is None:
            return "best"
        if self.n < self.needed:
            return f"too few pairs to tell (at least {self.needed})"
        return f"worse (p {self.p:.2g})" if self.p < SIGNIFICANT else f"within noise (p {self.p:.2g})"


@dataclass(frozen=True)
class Comparison:
    """All pictures of some models on the same prompts and seeds.

    Raises:
        AtelierError: a picture is missing or there twice, or only some have scores.
    """

    models: tuple[str, ...]
    """Labels, each its own."""
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    images: tuple[ComparisonImage, ...]
    scored_by: str = ""
    """Model and definition of the scores."""

    def __post_init__(self) -> None:
        wanted = {(m, p, s) for m in range(len(self.models)) for p in range(len(self.prompts)) for s in self.seeds}
        have = [(image.model, image.prompt, image.seed) for image in self.images]
        if not wanted or set(have) != wanted or len(have) != len(wanted):
            raise AtelierError(f"A comparison of {len(self.models)} models needs each prompt and seed once for each "
                               f"({len(wanted)} pictures); there are {len(have)}.", "Run the comparison to its end.")
        if len({image.score is None for image in self.images}) > 1:
            raise AtelierError("Some pictures of the comparison have no score.", "Score all or none.")

    @property
    def scored(self) -> bool:
        """Whether the pictures have scores."""
        return self.images[0].score is not None

    def image(self, model: int, prompt: int, seed: int) -> ComparisonImage:
        """The picture of a model for a prompt and a seed."""
        return self._by_position[model, prompt, seed]

    @cached_property
    def _by_position(self) -> dict[tuple[int, int, int], ComparisonImage]:
        return {(image.model, image.prompt, image.seed): image for image in self.images}

    def scores(self, model: int, prompt: int | None = None) -> list[float]:
        """A model's scores by prompt and seed, or those of one prompt by seed; empty where there are none."""
        prompts = range(len(self.prompts)) if prompt is None else [prompt]
        found = [self.image(model, p, seed).score for p in prompts for seed in self.seeds]
        return [score for score in found if score is not None]

    def ranking(self) -> list[Ranking]:
        """The models by their mean score, best first, each compared with the best on the same prompts and seeds."""
        if not self.scored:
            return []
        order = sorted(range(len(self.models)), key=lambda m: -statistics.fmean(self.scores(m)))
        best = self.scores(order[0])
        apart = {m: [a - b for a, b in zip(self.scores(m), best, strict=True)] for m in order[1:]}
        chances = dict(zip(apart, holm([sign_flip_p(d) for d in apart.values()]), strict=True))
        needed = fewest_pairs(max(1, len(apart)), SIGNIFICANT)
        return [Ranking(model=m, mean=statistics.fmean(self.scores(m)), std=statistics.pstdev(self.scores(m)),
                        n=len(best), difference=statistics.fmean(apart[m]) if m in apart else 0.0, p=chances.get(m),
                        needed=needed) for m in order]

    def seconds(self, model: int) -> tuple[float | None, bool]:
        """Median of a model's pictures, and whether loading is in it: only where there is no picture without."""
        known = [s for s in self.images if s.model == model and s.seconds is not None]
        chosen = [s for s in known if not s.loading] or known
        if not chosen:
            return None, False
        return statistics.median(s.seconds for s in chosen if s.seconds is not None), chosen[0].loading

    def peak(self, model: int) -> int | None:
        """Bytes on the device at most while the model drew; None where the device does not tell."""
        return max((s.peak for s in self.images if s.model == model and s.peak is not None), default=None)
