"""What a node tells the host while it works, and how the host stops it."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from kit.pack import pack_module
from PIL import Image

pytestmark = pytest.mark.host


@pytest.fixture
def sent(pack: ModuleType) -> Iterator[list[tuple[Any, ...]]]:
    """What goes to the host's progress bar, which polls the interrupt as the one in its main.py does."""
    import comfy.model_management as management
    import comfy.utils

    calls: list[tuple[Any, ...]] = []

    def hook(value: int, total: int, preview: Any, node_id: str | None = None) -> None:
        management.throw_exception_if_processing_interrupted()
        calls.append((value, total, preview))

    before = comfy.utils.PROGRESS_BAR_HOOK
    comfy.utils.set_progress_bar_global_hook(hook)
    yield calls
    comfy.utils.set_progress_bar_global_hook(before)
    management.interrupt_current_processing(False)


def test_the_interrupt_comes_from_check_alone(pack: ModuleType, sent: list[tuple[Any, ...]]) -> None:
    import comfy.model_management as management

    progress = pack_module(pack, "nodes.monitor").HostProgress()
    progress.phase("training", 10)
    progress.check()
    management.interrupt_current_processing()
    progress.advance(1, "one")
    progress.preview(Image.new("RGB", (8, 8)))
    with pytest.raises(management.InterruptProcessingException):
        progress.check()
    progress.check()


def test_the_bar_moves_and_shows_pictures(pack: ModuleType, sent: list[tuple[Any, ...]]) -> None:
    progress = pack_module(pack, "nodes.monitor").HostProgress()
    progress.phase("training", 4)
    for done in range(1, 5):
        progress.advance(done)
    progress.preview(Image.new("L", (8, 8)))
    assert sent[0][:2] == (1, 4)
    assert (4, 4, None) in sent
    kind, picture, _ = sent[-1][2]
    assert (kind, picture.mode) == ("JPEG", "RGB")


@pytest.mark.parametrize(("done", "seconds", "text"), [(0, 9, ""), (5, 0.5, ""), (20, 10, "2.0 it/s, 0:40 left"),
                                                       (5, 10, "2.0 s/it, 3:10 left"), (100, 10, "10.0 it/s")])
def test_speed_in_words(pack: ModuleType, done: int, seconds: float, text: str) -> None:
    assert pack_module(pack, "nodes.monitor")._speed(done, 100, seconds) == text
