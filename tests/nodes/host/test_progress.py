"""Progress of a node in the host, and the host's interrupt."""

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
    """The updates of the host's progress bar, whose hook polls for the interrupt like that of the host's main.py."""
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


def test_only_check_raises_the_interrupt(pack: ModuleType, sent: list[tuple[Any, ...]]) -> None:
    import comfy.model_management as management

    progress = pack_module(pack, "nodes.host.progress").HostProgress()
    progress.phase("training", 10)
    progress.check()
    management.interrupt_current_processing()
    progress.advance(1, "one")
    progress.preview(Image.new("RGB", (8, 8)))
    with pytest.raises(management.InterruptProcessingException):
        progress.check()
    progress.check()


def test_the_bar_moves_and_shows_previews(pack: ModuleType, sent: list[tuple[Any, ...]]) -> None:
    progress = pack_module(pack, "nodes.host.progress").HostProgress()
    progress.phase("training", 4)
    for done in range(1, 5):
        progress.advance(done)
    progress.preview(Image.new("L", (8, 8)))
    assert sent[0][:2] == (1, 4)
    assert (4, 4, None) in sent
    kind, picture, _ = sent[-1][2]
    assert (kind, picture.mode) == ("JPEG", "RGB")


@pytest.mark.parametrize(("done", "seconds", "text"), [
    (0, 9, ""), (5, 0.5, ""), (20, 10, " · 2.00 it/s · 0:40 left"), (5, 10, " · 2.0 s/it · 3:10 left"), (100, 10, "")])
def test_the_default_text_has_rate_and_time_left_once_they_are_known(pack: ModuleType, done: int, seconds: float,
                                                                     text: str) -> None:
    progress = pack_module(pack, "nodes.host.progress").HostProgress()
    progress.phase("encoding", 100)
    assert progress._default_text(done, seconds) == f"encoding {done}/100{text}"
