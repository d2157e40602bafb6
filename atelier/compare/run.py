"""Results of models on the same prompts and seeds: means, and a ranking with significance."""

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
    """Index of the model, from 0."""
    prompt: int
    """Index of the prompt, from 0."""
    seed: int
    score: float | None = None
    """CLIP score; None if not scored."""
    seconds: float | None = None
    """Time of sampling and decoding."""
    peak: int | None = None
    """Peak memory on the device in bytes; None where the device does not report it."""
    loading: bool = False
    """Whether `seconds` includes loading the model onto the device, as for its first picture."""


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """A model's position in the ranking."""

    model: int
    mean: float
    std: float
    """Standard deviation over the pictures (divided by n)."""
    n: int
    difference: float = 0.0
    """Mean minus that of the best model."""
    p: float | None = None
    """p-value of the difference, corrected for multiple comparisons; None for the best model itself."""
    needed: int = 0
    """Fewest pairs with which a difference among so many models can be significant."""

    @property
    def verdict(self) -> str:
        """Whether the difference to the best is significant, in words."""
        if self.p is None:
            return "best"
        if self.n < self.needed:
            return f"too few pairs to tell (at least {self.needed})"
        return f"worse (p {self.p:.2g})" if self.p < SIGNIFICANT else f"within noise (p {self.p:.2g})"


@dataclass(frozen=True)
class Comparison:
    """All pictures of some models on the same prompts and seeds.

    Raises:
        AtelierError: a picture is missing or duplicated, or only some have scores.
    """

    models: tuple[str, ...]
    """Distinct labels."""
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
        all_scores = [self.image(model, p, seed).score for p in prompts for seed in self.seeds]
        return [score for score in all_scores if score is not None]

    def ranking(self) -> list[Ranking]:
        """The models by their mean score, best first, each compared with the best on the same prompts and seeds."""
        if not self.scored:
            return []
        order = sorted(range(len(self.models)), key=lambda m: -statistics.fmean(self.scores(m)))
        best = self.scores(order[0])
        differences = {m: [a - b for a, b in zip(self.scores(m), best, strict=True)] for m in order[1:]}
        p_values = dict(zip(differences, holm([sign_flip_p(d) for d in differences.values()]), strict=True))
        needed = fewest_pairs(max(1, len(differences)), SIGNIFICANT)
        return [Ranking(model=m, mean=statistics.fmean(self.scores(m)), std=statistics.pstdev(self.scores(m)),
                        n=len(best), p=p_values.get(m),
                        difference=statistics.fmean(differences[m]) if m in differences else 0.0,
                        needed=needed) for m in order]

    def seconds(self, model: int) -> tuple[float | None, bool]:
        """Median seconds of a model's pictures, and whether they include loading: only if every picture does."""
        known = [s for s in self.images if s.model == model and s.seconds is not None]
        timed = [s for s in known if not s.loading] or known
        if not timed:
            return None, False
        return statistics.median(s.seconds for s in timed if s.seconds is not None), timed[0].loading

    def peak(self, model: int) -> int | None:
        """Peak memory of a model's pictures in bytes; None where the device does not report it."""
        return max((s.peak for s in self.images if s.model == model and s.peak is not None), default=None)
