"""What a training's report says of the scores of its samples."""

from __future__ import annotations

from atelier.train.report import _scores
from atelier.train.run_folder import RoundScore


def test_the_last_samples_are_compared_with_the_base_models_and_the_best() -> None:
    scores = {0: RoundScore(fidelity=0.1, likeness=0.2), 50: RoundScore(fidelity=0.4, likeness=0.5),
              100: RoundScore(fidelity=0.3, likeness=0.6)}
    assert _scores(scores) == ["samples of step 100: fidelity 0.3000 (base model 0.1000), likeness 0.6000 "
                               "(base model 0.2000); best fidelity 0.4000 at step 50"]


def test_without_both_nothing_is_compared() -> None:
    score = RoundScore(fidelity=0.1, likeness=0.2)
    assert _scores({}) == _scores({0: score}) == _scores({50: score}) == []
