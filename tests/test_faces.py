"""Face alignment against scikit-image, and restoration by the pixels of drawn faces."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.transform
import torch
from kit.faces import FACE, drawn, mesh, turned

from atelier.errors import AtelierError
from atelier.faces import SIZE, TEMPLATE, aligned, alignment, can_be_aligned, five_points, restore


def inverted(face: torch.Tensor) -> torch.Tensor:
    return 1 - face


def where(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return points @ matrix[:, :2].T + matrix[:, 2]


@pytest.mark.parametrize("seed", range(5))
def test_the_similarity_is_scikit_images(seed: int) -> None:
    points = TEMPLATE * 0.3 + np.random.default_rng(seed).normal(100, 9, TEMPLATE.shape)
    expected = skimage.transform.SimilarityTransform()
    expected.estimate(points, TEMPLATE)
    np.testing.assert_allclose(alignment(points), expected.params[:2], atol=1e-9)


def test_eyes_nose_and_mouth_come_from_the_mesh() -> None:
    np.testing.assert_allclose(five_points(mesh(FACE)), FACE, atol=1e-9)
    with pytest.raises(AtelierError, match="468 landmarks; 478"):
        five_points(np.zeros((468, 2)))
    with pytest.raises(AtelierError, match="at one point"):
        alignment(np.zeros((5, 2)))


@pytest.mark.parametrize("degrees", [0, 25, -70, 180])
def test_a_turned_face_comes_upright_with_its_eyes_in_place(degrees: float) -> None:
    points = turned(FACE, degrees, scale=0.4, center=(150, 130))
    face = aligned(drawn([points], 320, 260), alignment(points))
    assert face.shape == (SIZE, SIZE, 3)
    for x, y in TEMPLATE[:2]:
        x, y = round(x), round(y)
        assert face[y - 4:y + 5, x - 4:x + 5].mean() < 0.2, "a dark eye"
        assert face[y - 60:y - 50, x - 4:x + 5].mean() > 0.5, "skin above it"


def test_faces_are_replaced_and_the_rest_stays_bit_for_bit() -> None:
    first, second = turned(FACE, 15, 0.35, (110, 120)), turned(FACE, -30, 0.2, (300, 200))
    picture = drawn([first, second], 400, 300)
    done = restore(picture, [first, second], inverted, 1.0)
    changed = (done != picture).any(dim=-1).numpy()
    for points, scale in ((first, 0.35), (second, 0.2)):
        nose = points[2].round().astype(int)
        before, after = (t[nose[1] - 2:nose[1] + 3, nose[0] - 2:nose[0] + 3].mean(dim=(0, 1)) for t in (picture, done))
        torch.testing.assert_close(after, 1 - before, atol=0.02, rtol=0)
        y, x = np.mgrid[:300, :400]
        near = np.hypot(x - points[2][0], y - points[2][1]) < 280 * scale
        assert changed[near].mean() > 0.5
        changed &= ~near
    assert not changed.any(), "something beside the faces was touched"
    assert not np.shares_memory(done.numpy(), picture.numpy())


def test_the_edge_is_soft() -> None:
    picture = torch.full((512, 512, 3), 0.3)
    done = restore(picture, [TEMPLATE], lambda face: torch.ones_like(face), 1.0)
    line = done[282, :, 0]
    assert line[256] == pytest.approx(1.0, abs=1e-4) and line[0] == 0.3 == line[511]
    assert (line[1:] - line[:-1]).abs().max() < 0.7 * 1.5 / (0.25 * 188) * 1.1
    assert (line[1:257] >= line[:256] - 1e-6).all(), "it only rises up to the middle"


@pytest.mark.parametrize("strength", [0.0, 0.25, 1.0])
def test_strength_is_the_share(strength: float) -> None:
    picture = torch.rand(512, 512, 3, generator=torch.Generator().manual_seed(0)) * 0.5
    done = restore(picture, [TEMPLATE], lambda face: torch.ones_like(face), strength)
    middle = (slice(270, 290), slice(240, 270))
    torch.testing.assert_close(done[middle], picture[middle] * (1 - strength) + strength, atol=1e-4, rtol=0)
    if strength == 0:
        assert torch.equal(done, picture)


def test_a_model_that_changes_nothing_changes_next_to_nothing() -> None:
    points = turned(FACE, 20, 1.0, (300, 300))
    picture = drawn([points], 600, 600)
    done = restore(picture, [points], lambda face: face, 1.0)
    assert (done - picture).abs().mean() < 0.002


def test_a_model_may_answer_larger() -> None:
    picture = drawn([TEMPLATE], 512, 512)
    done = restore(picture, [TEMPLATE], lambda face: torch.nn.functional.interpolate(
        (1 - face).movedim(-1, 0)[None], scale_factor=2)[0].movedim(0, -1), 1.0)
    assert (done - restore(picture, [TEMPLATE], inverted, 1.0)).abs().mean() < 0.002  # edges are softer


def test_no_faces_half_a_face_and_wrong_strength() -> None:
    picture = drawn([FACE], 100, 80)
    assert torch.equal(restore(picture, [], inverted), picture)
    beside = turned(FACE, 0, 0.2, (-40, 40))
    assert restore(picture, [beside], inverted).shape == picture.shape
    away = turned(FACE, 0, 0.2, (-4000, 40))
    assert torch.equal(restore(picture, [away], inverted), picture)
    with pytest.raises(AtelierError, match=r"strength is 1\.5"):
        restore(picture, [FACE], inverted, 1.5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_pictures_of_half_precision_come_back_as_they_should(dtype: torch.dtype) -> None:
    points = turned(FACE, 20, 0.4, (900, 500))
    picture = drawn([points], 1100, 700).to(dtype)
    done = restore(picture, [points], inverted, 1.0)
    exact = restore(picture.float(), [points], inverted, 1.0)
    assert done.dtype == dtype
    torch.testing.assert_close(done, exact.to(dtype), atol=0, rtol=0)
    outside = (exact == picture.float()).all(dim=-1)
    assert outside.float().mean() > 0.9 and torch.equal(done[outside], picture[outside])


def test_alpha_stays_and_the_model_sees_colours() -> None:
    points = turned(FACE, 10, 0.3, (110, 90))
    picture = drawn([points], 220, 180)
    alpha = torch.rand(180, 220, 1, generator=torch.Generator().manual_seed(0))
    done = restore(torch.cat([picture, alpha], dim=-1), [points], inverted, 1.0)
    assert torch.equal(done[..., 3:], alpha)
    assert torch.equal(done[..., :3], restore(picture, [points], inverted, 1.0))


@pytest.mark.parametrize("broken", [turned(FACE, 0, 0.002, (50, 50)), np.full((5, 2), np.nan),
                                    np.where(np.eye(5, 2) > 0, np.inf, FACE)])
def test_a_face_without_size_or_place_is_left_out_and_the_others_are_restored(broken: np.ndarray) -> None:
    points = turned(FACE, 10, 0.3, (110, 90))
    picture = drawn([points], 220, 180)
    assert can_be_aligned(points) and not can_be_aligned(broken)
    done = restore(picture, [broken, points, broken], inverted, 1.0)
    assert torch.equal(done, restore(picture, [points], inverted, 1.0))
    assert torch.equal(restore(picture, [broken], inverted, 1.0), picture)
    with pytest.raises(AtelierError, match="at one point or are no numbers"):
        alignment(broken)


def test_a_face_three_times_the_models_size_is_averaged() -> None:
    picture = torch.rand(3 * SIZE, 3 * SIZE, 3, generator=torch.Generator().manual_seed(0))
    face = aligned(picture, alignment(TEMPLATE * 3 + 1))  # pixel n of the face is the middle of the n-th three
    expected = skimage.transform.downscale_local_mean(picture.numpy(), (3, 3, 1))
    np.testing.assert_allclose(face.numpy(), expected, atol=1e-4)


def chessboard(side: int) -> torch.Tensor:
    """A checkerboard of single pixels, which gives a coarse pattern if subsampled."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return ((x + y) % 2).float()[..., None].expand(-1, -1, 3)


@pytest.mark.parametrize("degrees", [0, 30])
def test_fine_patterns_of_a_large_face_become_even(degrees: float) -> None:
    face = aligned(chessboard(1600), alignment(turned(FACE, degrees, 3.0, (800, 760))))
    assert face[100:400, 100:400].std() < 0.1 and face.mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("degrees", [0, 30])
def test_fine_patterns_blended_into_a_small_face_become_even(degrees: float) -> None:
    points = turned(FACE, degrees, 0.2, (60, 60))
    done = restore(torch.full((120, 120, 3), 0.5), [points], lambda face: chessboard(SIZE), 1.0)
    assert (done - 0.5).abs().max() < 0.1
