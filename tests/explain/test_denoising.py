"""Which steps are shown, and how: strips with everything in its place, animations that play."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from atelier.errors import AtelierError
from atelier.explain.denoising import Step, chosen_steps, draw_strip, heat, save_animation


def picture(level: int, size: tuple[int, int] = (120, 80)) -> Image.Image:
    return Image.new("RGB", size, (level, 255 - level, 7))


def steps(count: int, *, guidance: bool = True) -> list[Step]:
    return [Step(number=i + 1, sigma=14.6 - i, timestep=999.0 - i, prediction=picture(10 * i),
                 noisy=picture(10 * i + 5),
                 guidance=np.full((10, 15), float(i + 1)) if guidance else None) for i in range(count)]


def cells(strip: Image.Image, columns: int, rows: int, size: tuple[int, int] = (120, 80)) -> list[list[np.ndarray]]:
    """The pictures of the first band, found by the numbers the module documents."""
    pixels = np.asarray(strip)
    return [[pixels[44 + r * (size[1] + 6):, 112 + c * (size[0] + 6):][:size[1], :size[0]] for c in range(columns)]
            for r in range(rows)]


@given(st.integers(1, 300), st.integers(0, 300), st.integers(2, 12))
def test_first_and_last_step_are_always_shown(total: int, every: int, most: int) -> None:
    chosen = chosen_steps(total, every, most)
    assert chosen[0] == 0 and chosen[-1] == total - 1
    assert list(chosen) == sorted(set(chosen))
    if every == 0:
        assert len(chosen) == min(total, most)
    else:
        assert {i for i in range(total) if i % every == 0} <= set(chosen)


def test_every_third_of_ten() -> None:
    assert chosen_steps(10, 3) == (0, 3, 6, 9)
    assert chosen_steps(11, 4) == (0, 4, 8, 10)
    with pytest.raises(AtelierError, match="every is -1"):
        chosen_steps(10, -1)


def test_pictures_stand_untouched_at_their_places() -> None:
    shown = draw_strip(steps(3), picture(200))
    assert shown.size == (112 + 4 * 126 + 6, 44 + 3 * 86 + 6)
    grid = cells(shown, 4, 3)
    for column, step in enumerate(steps(3)):
        assert np.array_equal(grid[0][column], np.asarray(step.prediction))
        assert step.noisy is not None and np.array_equal(grid[1][column], np.asarray(step.noisy))
        assert (grid[2][column] == np.asarray(heat(np.array([[(column + 1) / 3]]), 1.0))[0, 0]).all()
    assert np.array_equal(grid[0][3], np.asarray(picture(200)))
    assert (np.asarray(shown)[44 + 86:, 112 + 3 * 126:] == 255).all()


def test_rows_without_pictures_and_rows_not_wanted_take_no_room() -> None:
    assert draw_strip(steps(2, guidance=False), picture(0)).height == 44 + 2 * 86 + 6
    assert draw_strip(steps(2), picture(0), rows=("prediction",)).height == 44 + 86 + 6


def test_many_steps_go_on_below_and_cells_shrink() -> None:
    shown = draw_strip(steps(9), picture(1), rows=("prediction",), columns=4, cell=60)
    assert shown.size == (112 + 4 * 66 + 6, 3 * (44 + 46 + 6))
    assert draw_strip(steps(2), picture(1), cell=4000).size == draw_strip(steps(2), picture(1)).size


def test_labels_tell_the_steps_apart() -> None:
    pixels = np.asarray(draw_strip(steps(3), picture(0)))
    labels = [pixels[:44, 112 + c * 126:][:, :120] for c in range(4)]
    assert all(label.min() < 100 for label in labels)
    assert not np.array_equal(labels[0], labels[1])
    assert steps(1)[0].labels == ("step 1", "σ 14.6 · t 999")
    assert Step(number=2, sigma=0.5, timestep=None, prediction=picture(0)).labels == ("step 2", "σ 0.5")
    assert (pixels[44:, :112].reshape(-1, 112 * 3).min(axis=1) < 100).any(), "names of the rows"


def test_heat_runs_from_black_to_white() -> None:
    colours = np.asarray(heat(np.array([[0.0, 1 / 3, 2 / 3, 1.0, 9.0]]), 1.0))[0].tolist()
    assert colours == [[0, 0, 0], [255, 0, 0], [255, 255, 0], [255, 255, 255], [255, 255, 255]]
    assert not np.asarray(heat(np.zeros((2, 2)), 0.0)).any()


def test_the_animation_plays_all_steps_and_stays_on_the_result(tmp_path: Path) -> None:
    path = tmp_path / "a b" / "änim.webp"
    save_animation(path, steps(3), picture(200), milliseconds=100)
    with Image.open(path) as animation:
        times = []
        for number in range(getattr(animation, "n_frames", 1)):
            animation.seek(number)
            animation.load()
            times.append(animation.info["duration"])
            level = np.asarray(animation.convert("RGB"))[20, 20]
            assert abs(int(level[0]) - [0, 10, 20, 200][number]) < 12
        assert times == [100, 100, 100, 400] and animation.info["loop"] == 0
    assert [file.name for file in path.parent.iterdir()] == ["änim.webp"]
    with pytest.raises(AtelierError, match="milliseconds"):
        save_animation(path, steps(1), picture(0), milliseconds=0)
    save_animation(path, steps(1), picture(0), milliseconds=1)
    with Image.open(path) as animation:
        assert getattr(animation, "n_frames", 1) == 2
