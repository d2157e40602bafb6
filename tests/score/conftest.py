"""A small random CLIP model in a folder, and what scores with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.clip_models import clip_config, random_clip, save_clip

from atelier.score.load import open_scorer
from atelier.score.scorer import ClipScorer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("models") / "tiny clip", random_clip(clip_config()))


@pytest.fixture
def scorer(folder: Path) -> Iterator[ClipScorer]:
    yield open_scorer(folder)
