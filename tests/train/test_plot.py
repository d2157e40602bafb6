"""The loss plot, read back from its pixels."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import ImageColor, ImageDraw

from atelier.train import plot
from atelier.train.history import History, smoothed
from atelier.train.plot import loss_plot
from atelier.train.run_folder import RoundScore


def where(picture, colour: str, *, top: int = 46) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the pixels of a colour below `top`, where the legend ends."""
    far = np.abs(np.asarray(picture).astype(int) - ImageColor.getrgb(colour)).max(axis=-1)
    far[:top] = 255
    return np.nonzero(far < 24)


def test_validation_losses_lie_where_their_numbers_say() -> None:
    """On a straight line when they are, the best one marked at its own place."""
    looks = [(20, 0.9), (40, 0.7), (60, 0.5), (80, 0.3)]
    picture = loss_plot(History([0.6] * 100, validation=looks), title="plain", best_step=80)
    rows, columns = where(picture, plot.VALIDATION)
    slope, start = np.polyfit(columns, rows, 1)
    assert np.abs(start + slope * columns - rows).max() < 6  # the dots' radius and the line's width
    assert slope > 0  # downwards
    best_rows, best_columns = where(picture, plot.BEST)
    assert best_columns.mean() == pytest.approx(columns.max(), abs=8)
    assert best_rows.mean() == pytest.approx(rows.max(), abs=8)


def test_smoothing_weighs_by_age_and_is_corrected_for_its_start() -> None:
    assert smoothed([2.0, 2.0, 2.0]) == pytest.approx([2, 2, 2])
    # Weights 0.1 and 0.1 · 0.9 over their sum.
    assert smoothed([1.0, 3.0])[1] == pytest.approx((0.09 * 1 + 0.1 * 3) / 0.19)


def test_the_smoothed_curve_is_drawn_over_the_steps() -> None:
    losses = [1.0 - 0.005 * i for i in range(100)]
    rows, columns = where(loss_plot(History(losses), title="plain"), plot.TRAIN)
    across = np.unique(columns)
    drawn = np.array([rows[columns == x].mean() for x in across])
    wanted = np.interp(np.interp(across, (across[0], across[-1]), (1, 100)), range(1, 101), smoothed(losses))
    assert across[-1] - across[0] > 800
    assert np.corrcoef(drawn, wanted)[0, 1] == pytest.approx(-1, abs=1e-3)


@pytest.mark.parametrize("loss", [0.1974753737449646, 0.0, 3e-7, 40.0])
def test_a_single_step_has_lines_of_its_own(loss: float) -> None:
    """Its average differs from it by rounding alone; lines that close would all bear one number."""
    history = History([loss], epochs=[(1, loss)])
    rows, _ = where(loss_plot(history, title="plain"), plot.GRID)
    lines = np.flatnonzero(np.bincount(rows) > 400)
    assert 3 <= len(lines[np.insert(np.diff(lines) > 1, 0, True)]) <= 9


def test_losses_that_are_no_numbers_do_not_cost_the_plot() -> None:
    history = History([0.5, float("nan"), float("inf"), 0.4], validation=[(4, float("nan"))])
    assert loss_plot(history, title="plain", best_step=4).size == (960, 540)
    assert loss_plot(History(), title="plain").size == (960, 540)


def test_scores_lie_below_on_the_same_steps() -> None:
    """Fidelity falls and likeness rises, on straight lines; step 50 is above its half of the 100 steps."""
    losses = History([0.6] * 100)
    scores = {step: RoundScore(0.3 - step / 1000, 0.5 + step / 500) for step in (0, 50, 100)}
    picture = loss_plot(losses, title="plain", scores=scores)
    assert picture.size == (960, 540 + plot.SCORES)
    assert np.array_equal(np.asarray(picture)[:540], np.asarray(loss_plot(losses, title="plain")))
    for colour, rises in ((plot.FIDELITY, False), (plot.LIKENESS, True)):
        rows, columns = where(picture, colour, top=540 + 46)
        slope, start = np.polyfit(columns, rows, 1)
        assert bool(slope < 0) is rises and np.abs(start + slope * columns - rows).max() < 6
        assert columns.max() == pytest.approx(960 - 40, abs=8), "the last step is at the right end of the losses"


def test_the_legend_names_the_best_step() -> None:
    """Above the curves there is text in the colour of the mark, as there is not where nothing was best."""
    looks = [(20, 0.9), (40, 0.7)]

    def written(best: int) -> int:
        picture = loss_plot(History([0.6] * 50, validation=looks), title="plain", best_step=best)
        return len(where(picture.crop((0, 0, picture.width, 46)), plot.BEST, top=0)[0])

    assert written(40) > 20
    assert written(0) == 0


@pytest.mark.parametrize(("steps", "named"), [
    (3, ["0", "1", "2", "3"]), (15, ["0", "5", "10", "15"]), (400, ["0", "100", "200", "300", "400"])])
def test_only_whole_steps_are_named(monkeypatch: pytest.MonkeyPatch, steps: int, named: list[str]) -> None:
    written: list[str] = []
    draw = ImageDraw.ImageDraw.multiline_text
    monkeypatch.setattr(ImageDraw.ImageDraw, "multiline_text", lambda pen, place, text, *rest, **options: (
        written.append(text), draw(pen, place, text, *rest, **options)))
    loss_plot(History([0.5] * steps), title="plain")
    assert written == named
    written.clear()
    loss_plot(History([0.5] * steps), title="plain", steps_per_epoch=4)
    assert written[-1] == f"{steps}\nepoch {steps / 4:.3g}"
