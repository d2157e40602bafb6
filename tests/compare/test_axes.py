"""XY grids: which picture is which cell, what a person may type, means against sums by hand, pixels of the picture."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from atelier.compare.axes import Axis, Field, parse_axis, plan
from atelier.compare.compared_model import ComparedModel
from atelier.compare.picture import CAPTION, GAP, HEADER, SIDE
from atelier.compare.xy_grid import ScoredGrid, draw_xy
from atelier.errors import AtelierError

MODEL = ComparedModel(checkpoint="sd.safetensors", sampler="euler", scheduler="normal", steps=20, cfg=7.0,
                      lora="fox.safetensors", label="mine")
NAMES = {Field.CHECKPOINT: ["sd.safetensors", "other.ckpt"],
         Field.LORA: ["fox-100.safetensors", "fox-20.safetensors", "people\\ann.safetensors", "fox.safetensors"],
         Field.SAMPLER: ["euler", "dpmpp_2m"], Field.SCHEDULER: ["normal", "karras"]}
VALUES: dict[Field, tuple[Any, ...]] = {
    Field.CHECKPOINT: ("other.ckpt", "sd.safetensors"), Field.LORA: ("none", "fox-20.safetensors"),
    Field.STRENGTH: (0.0, 0.5), Field.STEPS: (4, 8), Field.CFG: (1.0, 3.5), Field.SAMPLER: ("dpmpp_2m", "euler"),
    Field.SCHEDULER: ("karras", "normal"), Field.PRECISION: ("fp16", "default"), Field.PROMPT: ("a cat", "a dog, lit"),
    Field.SEED: (3, 9)}


@pytest.mark.parametrize(("x", "y"), itertools.permutations(VALUES, 2))
def test_each_cell_is_drawn_with_its_two_values_and_all_else_as_given(x: Field, y: Field) -> None:
    made = plan(MODEL, "a fox", 5, Axis(x, VALUES[x]), Axis(y, VALUES[y]))
    assert set(made.cells) == {(i, j) for i in range(2) for j in range(2)}
    # The comparison draws models × prompts × seeds: it must be these cells and no others.
    assert set(made.cells.values()) == {(m, p, s) for m in range(len(made.models)) for p in range(len(made.prompts))
                                        for s in made.seeds}
    for (i, j), (m, p, s) in made.cells.items():
        wanted: dict[str, Any] = {**vars(replace(MODEL, label="")), "prompt": "a fox", "seed": 5}
        wanted |= {x.value: VALUES[x][i], y.value: VALUES[y][j]}
        wanted["lora"] = "" if wanted["lora"] == "none" else wanted["lora"]
        have = {**vars(replace(made.models[m], label="")), "prompt": made.prompts[p], "seed": s}
        assert have == wanted


def test_checkpoints_and_loras_follow_each_other_so_that_each_is_loaded_once() -> None:
    made = plan(MODEL, "", 0, Axis(Field.CHECKPOINT, VALUES[Field.CHECKPOINT]), Axis(Field.LORA, VALUES[Field.LORA]))
    checkpoints = [model.checkpoint for model in made.models]
    assert [name for name, _ in itertools.groupby(checkpoints)] == ["other.ckpt", "sd.safetensors"]


def test_one_axis_may_vary_nothing() -> None:
    made = plan(MODEL, "a fox", 5, Axis(Field.STEPS, (1, 2)), parse_axis(Field.NOTHING, "ignored", NAMES))
    assert made.cells == {(0, 0): (0, 0, 5), (1, 0): (1, 0, 5)}
    assert made.y.labels == ("",)


@pytest.mark.parametrize(("field", "text", "values"), [
    (Field.STEPS, "10, 20\n30,", (10, 20, 30)), (Field.CFG, "1, 7.5", (1.0, 7.5)),
    (Field.STRENGTH, "-1,0", (-1.0, 0.0)),
    (Field.PROMPT, "a cat, lit\n\na dog", ("a cat, lit", "a dog")), (Field.SEED, "0,18446744", (0, 18446744)),
    (Field.LORA, "none, fox-*", ("none", "fox-20.safetensors", "fox-100.safetensors")),
    (Field.LORA, "people/ann", ("people\\ann.safetensors",)), (Field.LORA, "fox", ("fox.safetensors",)),
    (Field.CHECKPOINT, "other.ckpt", ("other.ckpt",)), (Field.SAMPLER, "dpm*", ("dpmpp_2m",)),
])
def test_values_are_read_as_typed(field: Field, text: str, values: tuple[Any, ...]) -> None:
    assert parse_axis(field, text, NAMES).values == values


@pytest.mark.parametrize(("field", "values", "labels"), [
    (Field.CHECKPOINT, ("sd/v1.5.safetensors", "other.ckpt"), ("v1.5", "other")),
    (Field.LORA, ("none", "people\\ann.safetensors", "fox-20.safetensors"), ("none", "ann", "fox-20")),
    (Field.LORA, ("red/fox.safetensors", "blue\\fox.safetensors", "ann.pt"), ("red/fox", "blue/fox", "ann")),
    (Field.LORA, ("fox.safetensors", "red/fox.safetensors"), ("fox", "red/fox")),
    (Field.LORA, ("a/x/fox.pt", "b/x/fox.pt", "a/y/fox.pt"), ("a/x/fox", "b/x/fox", "y/fox")),
    (Field.CHECKPOINT, ("sd/v1.ckpt", "sd/v1.safetensors"), ("sd/v1.ckpt", "sd/v1.safetensors")),
    (Field.LORA, ("none", "none.safetensors"), ("none", "none.safetensors")),
    (Field.PROMPT, ("a cat", "a dog, lit"), ("a cat", "a dog, lit")),
    (Field.STEPS, (4, 10_000_000), ("steps 4", "steps 10000000")), (Field.SEED, (2**62,), (f"seed {2**62}",)),
    (Field.CFG, (1.0, 3.5), ("cfg 1", "cfg 3.5")), (Field.SAMPLER, ("euler",), ("sampler euler",)),
])
def test_each_value_has_a_short_label_of_its_own(field: Field, values: tuple[Any, ...], labels: tuple[str, ...]
                                                 ) -> None:
    assert Axis(field, values).labels == labels


@pytest.mark.parametrize(("field", "text", "message"), [
    (Field.STEPS, "", "has no values"), (Field.STEPS, "0", "has the value '0'"), (Field.STEPS, "1.5", "'1.5'"),
    (Field.CFG, "nan", "'nan'"), (Field.SEED, "-1", "'-1'"), (Field.STEPS, "4, 4", "value 4 twice"),
    (Field.LORA, "wolf*", r"There is no lora 'wolf\*'"), (Field.SAMPLER, "uler", "no sampler 'uler'"),
    (Field.LORA, "fox-*, fox-20", "'fox-20.safetensors' twice"), (Field.STRENGTH, "1e9", "'1e9'"),
])
def test_what_is_no_value_is_told(field: Field, text: str, message: str) -> None:
    with pytest.raises(AtelierError, match=message):
        parse_axis(field, text, NAMES)


def test_axes_that_make_no_grid_are_told() -> None:
    steps = Axis(Field.STEPS, tuple(range(1, 60)))
    with pytest.raises(AtelierError, match="Both axes vary steps"):
        plan(MODEL, "", 0, steps, steps)
    with pytest.raises(AtelierError, match="59 × 59 cells has too many"):
        plan(MODEL, "", 0, steps, Axis(Field.SEED, tuple(range(59))))
    strengths = Axis(Field.STRENGTH, (0.0, 1.0))
    with pytest.raises(AtelierError, match="has no LoRA whose strength"):
        plan(replace(MODEL, lora=""), "", 0, strengths, steps)
    assert plan(replace(MODEL, lora=""), "", 0, strengths, Axis(Field.LORA, ("fox.safetensors",))).models[0].lora


def grid(**settings: Any) -> ScoredGrid:
    scores = {(0, 0): 0.1, (1, 0): 0.2, (2, 0): 0.6, (0, 1): 0.3, (1, 1): 0.2, (2, 1): 0.0}
    return ScoredGrid(**{"x_name": "steps", "y_name": "seed", "columns": ("a", "b", "c"), "rows": ("r", "s"),
                     "scores": scores, "scored_by": "tiny clip", **settings})


def test_means_are_those_by_hand() -> None:
    assert grid().column_means() == pytest.approx([0.2, 0.2, 0.3])
    assert grid().row_means() == pytest.approx([0.3, 0.5 / 3])
    lines = grid().table().splitlines()
    assert lines[0].split() == ["seed", "\\", "steps", "a", "b", "c", "mean"]
    assert lines[1].split() == ["r", "0.1000", "0.2000", "0.6000", "0.3000"]
    assert lines[3].split() == ["mean", "0.2000", "0.2000", "0.3000", "0.2333"]
    assert lines[5:8] == ["best cell: c, r", "best steps on average: c", "best seed on average: r"]
    assert grid(scores={}).table() == "3 × 2 cells, not scored"
    with pytest.raises(AtelierError, match="1 of 6 cells"):
        grid(scores={(0, 0): 1.0})


@pytest.mark.parametrize("scored", [True, False])
def test_each_picture_lies_in_its_cell_untouched(scored: bool) -> None:
    rng = np.random.default_rng(0)
    pictures = {(i, j): Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8))
                for i in range(3) for j in range(2)}
    made = grid() if scored else grid(scores={})
    drawn = np.asarray(draw_xy(made, pictures))
    step = 40 + GAP + (CAPTION if scored else 0)
    for (i, j), picture in pictures.items():
        left, top = SIDE + i * (60 + GAP), HEADER + j * step
        assert np.array_equal(drawn[top:top + 40, left:left + 60], np.asarray(picture))
    right = drawn[HEADER:, SIDE + 3 * (60 + GAP):]
    assert bool(right.size and right.min() < 128) is scored, "the rows' means"
    assert np.asarray(draw_xy(made, pictures, cell=30)).shape[0] < drawn.shape[0]


@pytest.mark.parametrize("scored", [True, False])
@pytest.mark.parametrize(("x", "y"), [(Field.CFG, Field.NOTHING), (Field.NOTHING, Field.CFG)])
def test_a_grid_of_one_row_or_column_is_drawn_without_its_label(x: Field, y: Field, scored: bool) -> None:
    """An axis of nothing has an empty label, and all pictures are there before the grid is drawn."""
    made = plan(MODEL, "a fox", 5, parse_axis(x, "3, 4", NAMES), parse_axis(y, "3, 4", NAMES))
    labelled = grid(x_name=x.value, y_name=y.value, columns=made.x.labels, rows=made.y.labels,
                    scores=dict.fromkeys(made.cells, 0.25) if scored else {})
    drawn = np.asarray(draw_xy(labelled, {cell: Image.new("RGB", (60, 40)) for cell in made.cells}))
    empty = drawn[:, :SIDE] if y is Field.NOTHING else drawn[:HEADER, SIDE:SIDE + 60]
    told = drawn[:HEADER, SIDE:SIDE + 60] if y is Field.NOTHING else drawn[:, :SIDE]
    assert empty.min() == 255 and told.min() < 128
