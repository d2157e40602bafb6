"""Random inpainting masks: what they hide, and that nothing but the picture decides them."""

from __future__ import annotations

import numpy as np

from atelier.dataset.inpaint_masks import inpaint_masks

MASKS = [inpaint_masks(f"picture {number}", 96, 64, 5) for number in range(40)]


def test_the_first_hides_everything_and_the_others_a_part() -> None:
    for masks in MASKS:
        assert masks.shape == (5, 64, 96)
        assert set(np.unique(masks)) == {0, 1}
        assert masks[0].all()
        assert all(mask.any() and not mask.all() for mask in masks[1:])


def test_small_and_large_parts_are_hidden_everywhere() -> None:
    parts = np.concatenate([masks[1:] for masks in MASKS])
    shares = parts.mean((1, 2))
    assert shares.min() < 0.1 < 0.15 < np.median(shares) < 0.5 < shares.max()
    often = parts.mean(0)
    assert often.min() > 0.01
    assert often[16:48, 24:72].mean() < 4 * np.concatenate([often[:16].ravel(), often[48:].ravel()]).mean()


def test_each_has_its_own_shape() -> None:
    assert len({mask.tobytes() for masks in MASKS for mask in masks[1:]}) == 160


def test_equal_pictures_have_equal_masks_however_many_there_are() -> None:
    assert np.array_equal(inpaint_masks("picture 3", 96, 64, 3), MASKS[3][:3])
    assert np.array_equal(inpaint_masks("picture 3", 96, 64, 1), np.ones((1, 64, 96)))
