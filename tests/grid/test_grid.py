"""Block grids: exact geometry, placement, drawing and manifests."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from atelier.errors import AtelierError
from atelier.grid.compose import Fit, compose, fitted, parse_color
from atelier.grid.layout import Box, Gaps, Layout, Placement, arrange, rows_for
from atelier.grid.manifest import Origin, describe
from atelier.pictures.labels import font_size, strip


def solid(count: int, size: tuple[int, int], first: int = 0) -> list[Image.Image]:
    """Pictures of one colour each, all different."""
    return [Image.new("RGB", size, (number % 256, number // 256, 77)) for number in range(first, first + count)]


def noise(count: int, size: tuple[int, int], seed: int = 0) -> list[Image.Image]:
    numbers = np.random.default_rng(seed)
    return [Image.fromarray(numbers.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)) for _ in range(count)]


def same(a: Image.Image, b: Image.Image) -> bool:
    return a.size == b.size and a.convert("RGB").tobytes() == b.convert("RGB").tobytes()


REFERENCE = Layout(rows=4, columns=4, block=2, cell_width=139, cell_height=139)
"""The grid of 64 pictures whose published examples measure 1189 × 1190 with cells of about 139 pixels."""


def test_golden_positions() -> None:
    assert REFERENCE.gaps == Gaps(inside=4, between=10, margin=15)
    assert REFERENCE.size == (1188, 1188)  # 15 + 4 · (139 + 4 + 139) + 3 · 10 + 15
    assert REFERENCE.cell(0, 0) == Box(15, 15, 139, 139)
    assert REFERENCE.cell(0, 1) == Box(158, 15, 139, 139)
    assert REFERENCE.cell(0, 2) == Box(15, 158, 139, 139)
    assert REFERENCE.cell(1, 0) == Box(307, 15, 139, 139)
    assert REFERENCE.cell(4, 0) == Box(15, 307, 139, 139)
    assert REFERENCE.cell(6, 3) == Box(742, 450, 139, 139)
    assert REFERENCE.cell(15, 3) == Box(1034, 1034, 139, 139)


def test_golden_positions_with_captions_and_wide_cells() -> None:
    layout = Layout(rows=1, columns=2, block=3, cell_width=30, cell_height=20, caption_height=8, gaps=Gaps(1, 5, 2))
    assert layout.size == (2 + 92 + 5 + 92 + 2, 2 + 3 * 28 + 2 * 1 + 2)
    assert layout.cell(1, 5) == Box(2 + 92 + 5 + 62, 2 + 29, 30, 20)
    assert layout.caption(1, 5) == Box(161, 51, 30, 8)


def test_the_drawn_grid_has_its_cells_where_the_layout_says() -> None:
    uniques, fillers = solid(16, (139, 139)), solid(48, (139, 139), first=100)
    places = arrange(REFERENCE, 16, 48, Placement.RANDOM, seed=5)
    grid = np.asarray(compose(REFERENCE, places, uniques, fillers, background=(255, 255, 255)))
    white = (grid == 255).all(axis=2)
    empty = [x for x in range(1188) if white[:, x].all()]
    # Columns of gap: margins, and between cells by turns 4 and 10.
    expected = [*range(15)]
    for block in range(4):
        left = 15 + block * 292
        expected += [*range(left + 139, left + 143), *range(left + 282, left + 292)]
    assert empty == sorted(x for x in {*expected, *range(1173, 1188)} if x < 1188)
    assert [y for y in range(1188) if white[y].all()] == empty
    for place in places:
        box = REFERENCE.cell(place.block, place.place)
        picture = (uniques if place.unique else fillers)[place.picture]
        part = grid[box.y:box.y + box.height, box.x:box.x + box.width]
        assert (part == np.array(picture.getpixel((0, 0)))).all()


@st.composite
def grids(draw: st.DrawFn) -> tuple[Layout, int, Placement, int]:
    small = st.integers(1, 4)
    gap = st.integers(0, 12)
    layout = Layout(rows=draw(small), columns=draw(small), block=draw(st.integers(1, 3)),
                    cell_width=draw(st.integers(1, 9)), cell_height=draw(st.integers(1, 9)),
                    caption_height=draw(st.integers(0, 5)), gaps=Gaps(draw(gap), draw(gap), draw(gap)))
    uniques = draw(st.integers(1, layout.rows * layout.columns))
    return layout, uniques, draw(st.sampled_from(Placement)), draw(st.integers(0, 2 ** 64 - 1))


@settings(max_examples=150, deadline=None)
@given(grids())
def test_every_picture_is_placed_once_and_no_cell_overlaps(grid: tuple[Layout, int, Placement, int]) -> None:
    layout, uniques, placement, seed = grid
    fillers = uniques * (layout.block ** 2 - 1)
    places = arrange(layout, uniques, fillers, placement, seed)
    assert sorted(p.picture for p in places if p.unique) == [*range(uniques)]
    assert sorted(p.picture for p in places if not p.unique) == [*range(fillers)]
    assert all(count == 1 for count in Counter(p.block for p in places if p.unique).values())
    covered = np.zeros(layout.size[::-1], dtype=int)
    for place in places:
        for box in (layout.cell(place.block, place.place), layout.caption(place.block, place.place)):
            left, top, right, bottom = box.corners
            assert layout.gaps.margin <= left and right <= layout.size[0] - layout.gaps.margin
            assert layout.gaps.margin <= top and bottom <= layout.size[1] - layout.gaps.margin
            covered[top:bottom, left:right] += 1
    assert covered.max() == 1
    assert arrange(layout, uniques, fillers, placement, seed) == places


def pictures_of(grid: Image.Image, manifest: dict[str, Any], kind: str) -> list[Image.Image]:
    """The pictures of one kind, cropped out of a grid by its saved manifest, in the order they were given."""
    cells = sorted((cell for cell in manifest["cells"] if cell["kind"] == kind), key=lambda cell: cell["picture"])
    boxes = [cell["box"] for cell in cells]
    return [grid.crop((box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"])) for box in boxes]


@settings(max_examples=60, deadline=None)
@given(grids())
def test_cropping_by_the_manifest_gives_back_the_pictures_bit_for_bit(grid: tuple[Layout, int, Placement, int]) -> None:
    layout, uniques, placement, seed = grid
    size = (layout.cell_width, layout.cell_height)
    own, others = noise(uniques, size), noise(uniques * (layout.block ** 2 - 1), size, seed=1)
    places = arrange(layout, len(own), len(others), placement, seed)
    picture = compose(layout, places, own, others, captions={0: "a cat"})
    manifest = describe(layout, places, [Origin(prompt=f"cat {i}", seed=i) for i in range(len(own))],
                        [Origin(source=f"{i}.jpg") for i in range(len(others))], seed)
    # Through JSON text, as it is saved beside the grid; its numbers must hold 64-bit seeds.
    saved = json.loads(json.dumps(manifest.to_json()))
    assert (saved["version"], saved["width"], saved["height"], saved["seed"]) == (1, *picture.size, seed)
    first, second = (pictures_of(picture, saved, kind) for kind in ("unique", "filler"))
    assert all(same(a, b) for a, b in zip(first, own, strict=True))
    assert all(same(a, b) for a, b in zip(second, others, strict=True))


def test_random_placement_uses_every_cell_and_follows_its_seed() -> None:
    layout = replace(REFERENCE, rows=10, columns=10)

    def cells(seed: int) -> list[int]:
        return [p.place for p in arrange(layout, 100, 300, Placement.RANDOM, seed) if p.unique]

    assert set(cells(1)) == {0, 1, 2, 3}
    assert cells(1) == cells(1) != cells(2)
    # Python promises random.Random's sequence; a change here would move the pictures of every saved workflow.
    assert cells(1)[:12] == [1, 0, 2, 0, 3, 3, 3, 3, 1, 0, 3, 0]


@pytest.mark.parametrize(("placement", "block", "cell"), [
    (Placement.TOP_LEFT, 2, 0), (Placement.TOP_RIGHT, 2, 1), (Placement.BOTTOM_LEFT, 2, 2),
    (Placement.BOTTOM_RIGHT, 2, 3), (Placement.CENTER, 3, 4), (Placement.BOTTOM_LEFT, 3, 6), (Placement.CENTER, 1, 0),
])
def test_fixed_placement(placement: Placement, block: int, cell: int) -> None:
    layout = replace(REFERENCE, block=block)
    places = arrange(layout, 16, 16 * (block ** 2 - 1), placement, seed=9)
    assert {p.place for p in places if p.unique} == {cell}


@pytest.mark.parametrize(("uniques", "columns", "expected"), [
    (16, 0, (4, 4)), (12, 0, (3, 4)), (7, 0, (3, 3)), (1, 0, (1, 1)), (2, 0, (1, 2)), (7, 2, (4, 2)), (16, 16, (1, 16)),
])
def test_rows_and_columns_for_a_number_of_pictures(uniques: int, columns: int, expected: tuple[int, int]) -> None:
    assert rows_for(uniques, columns) == expected


@pytest.mark.parametrize(("wrong", "message"), [
    ({"block": 0}, "block is 0"), ({"cell_width": -1}, "cell_width is -1"), ({"rows": 0}, "rows is 0"),
    ({"caption_height": -2}, "caption_height is -2"),
])
def test_impossible_layouts_name_the_field(wrong: dict[str, int], message: str) -> None:
    with pytest.raises(AtelierError, match=message):
        Layout(**wrong)


def test_a_grid_beyond_all_memory_is_refused() -> None:
    Layout(rows=8, columns=8, block=2, cell_width=1024, cell_height=1024)
    with pytest.raises(AtelierError, match=r"400\d\d\d × 200\d\d\d pixels is too large"):
        Layout(rows=1, columns=2, block=2, cell_width=100_000, cell_height=100_000)


def test_wrong_numbers_of_pictures_are_refused() -> None:
    with pytest.raises(AtelierError, match="gap between is -1"):
        Gaps(between=-1)
    with pytest.raises(AtelierError, match=r"17 unique pictures for 4 × 4 blocks"):
        arrange(REFERENCE, 17, 51)
    for fillers in (47, 49):
        with pytest.raises(AtelierError, match=rf"There are {fillers} fillers; 16 blocks .* need 48"):
            arrange(REFERENCE, 16, fillers)
    with pytest.raises(AtelierError, match="0 unique pictures"):
        rows_for(0)


def test_fit_modes_by_hand() -> None:
    wide = Image.new("RGB", (80, 40), (255, 0, 0))
    wide.paste((0, 255, 0), (20, 0, 60, 40))
    crop, pad, stretch = (np.asarray(fitted(wide, (40, 40), fit, (0, 0, 255))) for fit in Fit)
    assert (crop == (0, 255, 0)).all(), "the middle square, nothing else"
    assert (pad[:10] == (0, 0, 255)).all() and (pad[30:] == (0, 0, 255)).all() and (pad[15, 2] == (255, 0, 0)).all()
    assert (stretch[:, :6] == (255, 0, 0)).all() and (stretch[:, 14:26] == (0, 255, 0)).all()
    for fit in Fit:
        assert same(fitted(noise(1, (40, 40))[0], (40, 40), fit), noise(1, (40, 40))[0]), "its size: untouched"


def test_captions_are_written_below_their_cell_and_nowhere_else() -> None:
    layout = Layout(rows=1, columns=2, block=1, cell_width=96, cell_height=40, caption_height=24)
    places = arrange(layout, 2, 0)
    plain, written = (
        np.asarray(compose(layout, places, solid(2, (96, 40)), [], captions=text, background=(20, 20, 20)))
        for text in (None, {1: "0.3123"}))
    strip = layout.caption(1, 0)
    changed = (plain != written).any(axis=2)
    assert changed[strip.y:strip.y + strip.height, strip.x:strip.x + strip.width].any()
    changed[strip.y:strip.y + strip.height, strip.x:strip.x + strip.width] = False
    assert not changed.any()
    assert written[strip.y:strip.y + strip.height].max() > 200, "light letters on a dark ground"


def test_a_partly_filled_grid_keeps_its_ground() -> None:
    layout = Layout(rows=2, columns=2, block=1, cell_width=10, cell_height=10, gaps=Gaps(0, 0, 0))
    grid = np.asarray(compose(layout, arrange(layout, 3, 0), solid(3, (10, 10)), [], background=(9, 8, 7)))
    assert (grid[10:, 10:] == (9, 8, 7)).all()


def test_colours() -> None:
    assert parse_color(" White ") == (255, 255, 255)
    assert parse_color("#1a2b3c") == (26, 43, 60)
    with pytest.raises(AtelierError, match="'whitish' is no colour"):
        parse_color("whitish")


def test_the_manifest_says_what_lies_where() -> None:
    layout = Layout(rows=1, columns=1, block=2, cell_width=10, cell_height=10)
    places = arrange(layout, 1, 3, Placement.BOTTOM_LEFT)
    manifest = describe(layout, places, [Origin("a cat", seed=7, score=0.31, label="cfg 3")],
                        [Origin(source=f"{i}.jpg") for i in range(3)])
    cells = manifest.to_json()["cells"]
    assert [cell["kind"] for cell in cells] == ["filler", "filler", "unique", "filler"]
    assert cells[2]["origin"] == {"prompt": "a cat", "seed": 7, "source": "", "score": 0.31, "label": "cfg 3"}
    assert cells[2]["box"] == {"x": 15, "y": 29, "width": 10, "height": 10}
    assert [cell["origin"]["source"] for cell in cells if cell["kind"] == "filler"] == ["0.jpg", "1.jpg", "2.jpg"]


def test_captions_of_a_grid_share_one_size() -> None:
    layout = Layout(rows=1, columns=2, block=1, cell_width=120, cell_height=10, caption_height=40)
    long = "a cat wearing neon-glasses at the opera in the rain"
    grid = compose(layout, arrange(layout, 2, 0), solid(2, (120, 10)), [], captions={0: "0.31", 1: long})
    box = layout.caption(0, 0)
    size = font_size(long, box.width, box.height)
    assert size < font_size("0.31", box.width, box.height)
    assert same(grid.crop(box.corners), strip("0.31", box.width, box.height, largest=size))
