"""Comparisons of models: the test for noise against SciPy, tables against sums by hand, pictures by their pixels."""

from __future__ import annotations

import csv
import io
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from kit.checkpoints import write_sdxl
from PIL import Image

from atelier.compare.compared_model import ComparedModel, advice_for, distinct
from atelier.compare.picture import CAPTION, GAP, HEADER, SIDE, draw_bars, draw_grid
from atelier.compare.run import Comparison, ComparisonImage
from atelier.compare.significance import DRAWS, fewest_pairs, holm, sign_flip_p
from atelier.compare.table import csv_text, table
from atelier.errors import AtelierError
from atelier.pictures.labels import side_label


@pytest.mark.parametrize("count", [2, 6, 11, 16])
@pytest.mark.parametrize("shift", [0.0, 0.4, 2.0])
def test_small_samples_are_tested_exactly_as_scipy_does(count: int, shift: float) -> None:
    values = np.random.default_rng(count).normal(shift, 1, count)
    expected = scipy.stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=np.inf,
                                            alternative="two-sided")
    # SciPy doubles the smaller tail; by symmetry that is the share of means as far from 0.
    assert sign_flip_p(list(values)) == pytest.approx(expected.pvalue, abs=1e-12)


def test_large_samples_come_close_to_scipy_and_students_test() -> None:
    values = np.random.default_rng(3).normal(0.25, 1, 60)
    p = sign_flip_p(list(values))
    expected = scipy.stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=100_000,
                                            random_state=1)
    assert p == pytest.approx(expected.pvalue, rel=0.15)
    assert p == pytest.approx(scipy.stats.ttest_1samp(values, 0).pvalue, rel=0.3)
    assert p == sign_flip_p(list(values))


def test_no_difference_and_ties() -> None:
    assert sign_flip_p([0.0] * 5) == 1.0
    assert sign_flip_p([0.1, 0.2, 0.3]) == 0.25
    with pytest.raises(AtelierError, match="no pairs"):
        sign_flip_p([])


def test_no_p_of_random_patterns_is_0() -> None:
    """Phipson and Smyth 2010: the observed pattern is one of them, and a p of 0 would survive any correction."""
    assert sign_flip_p([1.0] * 40) == 1 / (DRAWS + 1)


def test_few_false_alarms_among_equal_models() -> None:
    numbers = np.random.default_rng(0)
    alarms = sum(sign_flip_p(list(numbers.normal(0, 1, 10))) < 0.05 for _ in range(300))
    assert alarms < 30  # 15 are expected


def test_holms_correction_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def comparison(*, scored: bool = True, offset: float = 0.1, models: int = 2, prompts: int = 3) -> Comparison:
    """Model 1 is better by `offset` on every prompt and seed but for a little noise; model 2 is model 1's equal."""
    numbers = np.random.default_rng(1)
    base = {(p, s): numbers.uniform(0.2, 0.3) for p in range(prompts) for s in (1, 2, 3)}
    images = tuple(
        ComparisonImage(model=m, prompt=p, seed=s,
                        score=base[p, s] + (offset if m else 0) + numbers.normal(0, 0.002) if scored else None,
                        seconds=0.5 + m + (5 if (p, s) == (0, 1) else 0), peak=None if m else 2_000_000_000,
                        loading=(p, s) == (0, 1))
        for m in range(models) for (p, s) in base)
    names = ("plain", "tuned, with a very long name that goes on", "again")[:models]
    return Comparison(names, tuple(f"prompt {p}, of a cat" for p in range(prompts)), (1, 2, 3), images,
                      "tiny clip, cosine" if scored else "")


def test_the_ranking_pairs_prompts_and_seeds() -> None:
    made = comparison(models=3)
    first, second, last = made.ranking()
    assert last.model == 0 and {first.model, second.model} == {1, 2}
    assert last.verdict.startswith("worse (p 0.00") and second.verdict.startswith("within noise")
    best, plain = made.scores(first.model), made.scores(0)
    assert last.mean == pytest.approx(statistics.fmean(plain)) and last.std == pytest.approx(np.std(plain))
    assert last.difference == pytest.approx(np.mean(plain) - np.mean(best))
    assert last.p == pytest.approx(2 * sign_flip_p(np.subtract(plain, best).tolist()))
    assert first.p is None and first.verdict == "best"


def test_too_few_pairs_are_reported() -> None:
    assert comparison(prompts=1).ranking()[1].verdict == "too few pairs to tell (at least 6)"


@pytest.mark.parametrize("models", [2, 3, 4, 5, 7, 9])
def test_no_verdict_where_the_clearest_difference_could_not_show(models: int) -> None:
    """A model that loses every pair is called worse from `fewest_pairs` pairs on, not before."""
    def ranking(pairs: int):
        images = tuple(ComparisonImage(model=m, prompt=0, seed=s,
                                       score=0.9 - 0.1 * m) for m in range(models) for s in range(pairs))
        return Comparison(tuple("abcdefghi"[:models]), ("a cat",), tuple(range(pairs)), images).ranking()

    needed = fewest_pairs(models - 1, 0.05)
    assert all(s.verdict.startswith("worse") for s in ranking(needed)[1:])
    assert all(s.verdict == f"too few pairs to tell (at least {needed})" for s in ranking(needed - 1)[1:])
    assert all(s.p is not None and s.p >= 0.05 for s in ranking(needed - 1)[1:])


def test_seconds_leave_loading_out_where_they_can() -> None:
    made = comparison(prompts=1)
    alone = Comparison(made.models, made.prompts, (1,), tuple(s for s in made.images if s.seed == 1))
    assert made.seconds(0) == (0.5, False) and alone.seconds(0) == (5.5, True)
    assert "5.50*" in table(alone) and "* with loading" in table(alone) and "*" not in table(made)
    two = Comparison(made.models, made.prompts, (1, 2), tuple(s for s in made.images if s.seed < 3))
    assert two.seconds(0) == (0.5, False)


def test_table_and_csv_say_the_same() -> None:
    made = comparison()
    lines = table(made).split("\n")
    assert lines[0].split() == ["model", "mean", "std", "n", "to", "best", "s/picture", "peak", "GB"]
    assert lines[1].startswith("tuned, with a…") and lines[1].endswith("best")
    mean = statistics.fmean(made.scores(0))
    assert lines[2].split()[:4] == ["plain", f"{mean:.4f}", f"{np.std(made.scores(0)):.4f}", "9"]
    assert lines[2].split()[5:7] == ["0.50", "2.00"]
    assert lines[-1] == "tiny clip, cosine" and "mean ± std by prompt, n 3" in table(made)
    rows = list(csv.DictReader(io.StringIO(csv_text(made))))
    assert len(rows) == 18 and rows[0]["prompt"] == "prompt 0, of a cat"
    assert statistics.fmean(float(row["score"]) for row in rows if row["model"] == "plain") == pytest.approx(mean)


def test_long_names_stay_apart_in_narrow_columns() -> None:
    made = comparison()
    names = tuple(f"one-checkpoint-with-a-long-name + my-style at {strength}" for strength in (0.4, 0.7))
    lines = table(Comparison(names, made.prompts, made.seeds, made.images)).split("\n")
    head = next(line for line in lines if line.startswith("mean ± std by prompt"))
    assert "at 0.4" in head and "at 0.7" in head and head.count("one-che…") == 2 and len(head) < 110


def test_without_scores_there_are_times_only() -> None:
    made = comparison(scored=False)
    assert made.ranking() == [] and made.seconds(1) == (1.5, False)
    assert table(made).split("\n")[0].split() == ["model", "s/picture", "peak", "GB"]


def test_a_picture_missing_or_unscored_is_an_error() -> None:
    made = comparison()
    with pytest.raises(AtelierError, match=r"18 pictures\); there are 17"):
        Comparison(made.models, made.prompts, made.seeds, made.images[1:])
    with pytest.raises(AtelierError, match="no score"):
        Comparison(made.models, made.prompts, made.seeds,
                   (ComparisonImage(model=0, prompt=0, seed=1), *made.images[1:]))


def pictures(made: Comparison) -> dict[tuple[int, int, int], Image.Image]:
    return {(s.model, s.prompt, s.seed): Image.new("RGB", (120, 96), (60 * s.model, 80 * s.prompt, 50 * s.seed))
            for s in made.images}


@pytest.mark.parametrize("scored", [True, False])
def test_every_picture_stands_at_its_place(scored: bool) -> None:
    made = comparison(scored=scored)
    step = 96 + (CAPTION if scored else 0) + GAP
    grid = np.asarray(draw_grid(made, pictures(made)))
    assert grid.shape == (HEADER + 9 * step, SIDE + 2 * (120 + GAP), 3)
    for (m, p, seed), picture in pictures(made).items():
        top, left = HEADER + (p * 3 + seed - 1) * step, SIDE + m * (120 + GAP)
        assert np.array_equal(grid[top:top + 96, left:left + 120], np.asarray(picture))
    assert draw_grid(made, pictures(made), cell=60).size == (SIDE + 2 * 66, HEADER + 9 * (step - 48))


def test_labels_never_leave_their_places() -> None:
    long = "an extraordinarily long label " * 20
    made = comparison()
    made = Comparison((long + "1", long + "2"), (long, "b", "c"), made.seeds, made.images)
    grid = np.asarray(draw_grid(made, pictures(made))).astype(int)
    for x in (0, SIDE - 1, SIDE + 120, SIDE + 125):  # the edges of the side column, and the gaps beside the pictures
        assert (grid[:, x] == 255).all()
    assert (grid[HEADER - 2:HEADER] == 255).all()
    assert grid[:HEADER, SIDE:].min() < 100 and grid[HEADER:, :SIDE].min() < 100


@pytest.mark.parametrize("side", [64, 256, 768])
def test_labels_are_readable_beside_pictures_of_any_size(side: int) -> None:
    label = np.asarray(side_label("a large red square · seed 3", 170, side, 17)).min(axis=2) < 100
    rows = np.flatnonzero(label.any(axis=1))
    assert label.sum() > 250 and 20 < rows.max() - rows.min() < 70
    assert abs((rows.max() + rows.min()) / 2 - side / 2) < 6


def test_bars_are_as_long_as_the_means() -> None:
    made = comparison()
    chart = np.asarray(draw_bars(made))
    lengths = [(chart[HEADER + row * 40 + 2] == colour).all(axis=1).sum()
               for row, colour in ((0, (47, 111, 208)), (1, (150, 178, 214)))]
    means = [statistics.fmean(made.scores(m)) for m in (1, 0)]
    assert lengths[0] / lengths[1] == pytest.approx(means[0] / means[1], rel=0.02)
    assert draw_bars(comparison(scored=False)).height == chart.shape[0]


def test_advice_follows_the_kind_of_model_and_lora(tmp_path: Path) -> None:
    base = write_sdxl(tmp_path / "some xl model.safetensors", "tiny")
    plain, fast = advice_for(base), advice_for(base, "sdxl_lightning_4step_lora.safetensors")
    assert (plain.steps, plain.cfg) != (fast.steps, fast.cfg) == (4, 1.0)
    assert (fast.sampler, fast.scheduler) == ("euler", "sgm_uniform")


def test_names_and_keys_of_compared_models() -> None:
    made = ComparedModel(checkpoint="sub/base.safetensors", sampler="euler", scheduler="normal", steps=20, cfg=7.0,
                         lora="neon.safetensors", strength=0.4, precision="bf16")
    assert made.name == "base + neon at 0.4, bf16"
    assert replace(made, label=" tuned ").name == "tuned"
    assert distinct(["a", "b", "a", "a (2)"]) == ("a", "b", "a (2)", "a (2) (2)")
    same: dict[str, Any] = {"prompt": "a cat", "negative": "", "seed": 1, "size": (64, 64), "states": ["x"]}
    key = made.key(**same)
    assert replace(made, label="other").key(**same) == key
    changes: list[dict[str, Any]] = [{"prompt": "a dog"}, {"negative": "b"}, {"seed": 2}, {"size": (64, 72)},
                                     {"states": ["y"]}]
    others = [replace(made, strength=0.5).key(**same), *(made.key(**(same | change)) for change in changes)]
    assert len({key, *others}) == 7
    bare = replace(made, lora="", strength=1.0)
    assert replace(made, strength=0.0).key(**same) == bare.key(**same) == replace(bare, strength=0.3).key(**same)
    for values in ({"steps": 0}, {"precision": "fp4"}):
        with pytest.raises(AtelierError, match=next(iter(values))):
            replace(made, **values)  # pyright: ignore[reportArgumentType]
