"""Which pictures a batch holds: every picture as often as asked, and the same again for the same seed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.training import MemorySet

from atelier.errors import AtelierError
from atelier.train.bucket_sampler import BucketSampler, derived_seed, groups, steps_per_epoch


@given(count=st.integers(1, 20), repeats=st.integers(1, 4), batch=st.integers(1, 7), epoch=st.integers(0, 5),
       seed=st.integers(0, 99))
def test_every_picture_is_used_exactly_its_repeats(count: int, repeats: int, batch: int, epoch: int, seed: int) -> None:
    items = MemorySet.of(count, repeats=repeats).items
    items = tuple(replace(item, height=8 if item.index % 3 else 16) for item in items)
    order = BucketSampler(items, batch, seed)
    batches = order.epoch(epoch)
    assert Counter(use.index for b in batches for use in b) == dict.fromkeys(range(count), repeats)
    assert all(len({items[use.index].height for use in b}) == 1 and len(b) <= batch for b in batches)
    assert len(batches) == order.batches_per_epoch
    assert order.epoch(epoch) == batches


def test_epochs_and_seeds_differ() -> None:
    items = MemorySet.of(20).items
    orders = [BucketSampler(items, 1, seed).epoch(epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_prior_pictures_are_as_many_as_the_others_and_all_get_their_turn() -> None:
    order = BucketSampler(MemorySet.of(4, prior=6, repeats=2).items, 2, 0)
    used = Counter(use.index for epoch in range(3) for b in order.epoch(epoch) for use in b)
    assert sum(used[i] for i in range(4)) == sum(used[i] for i in range(4, 10)) == 24
    assert all(used[i] == 4 for i in range(4, 10))


def test_captions_are_dropped_flipped_and_varied_at_the_asked_rate() -> None:
    order = BucketSampler(MemorySet.of(1000, flips=True, captions=4).items, 4, 7, caption_dropout=0.3)
    uses = [use for b in order.epoch(0) for use in b]
    assert 240 < sum(use.without_caption for use in uses) < 360
    assert 440 < sum(use.flip for use in uses) < 560
    assert all(200 < n < 300 for n in Counter(use.variant for use in uses).values())


def test_accumulation_never_reaches_over_an_epoch() -> None:
    order = BucketSampler(MemorySet.of(7).items, 2, 0)
    assert [len(group) for group in groups(order.epoch(0), 3)] == [3, 1]
    assert steps_per_epoch(order, 3) == 2


def test_derived_seeds_do_not_change() -> None:
    # The first eight bytes of SHA-256("step/0/0/0"), halved; another value would break resuming across versions.
    assert derived_seed("step", 0, 0, 0) == 3156925461951901213
    assert 0 <= derived_seed("a") < 2**63 and derived_seed("a", 1) != derived_seed("a", 2)


def test_an_epoch_of_millions_of_uses_is_refused_at_once() -> None:
    """Its order would take gigabytes and minutes before the first step."""
    with pytest.raises(AtelierError, match=r"20240131 times.*repeats"):
        BucketSampler(MemorySet.of(1, repeats=20_240_131).items, 1, 0)
