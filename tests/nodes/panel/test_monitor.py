"""The events of a training for the editor."""

from __future__ import annotations

import logging
from io import BytesIO
from types import ModuleType
from typing import Any

import pytest
from kit.pack import pack_module
from PIL import Image

pytestmark = pytest.mark.host


def test_the_end_is_sent_before_the_node_returns(pack: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    module, statuses = pack_module(pack, "nodes.panel.monitor"), []
    monkeypatch.setattr(module.web_server, "send_event", lambda name, data: statuses.append(data["status"]))
    progress = module.TrainingProgress(module.Session(module.Key("p", "4", "w"), can_sample=True))
    progress.phase("training", 1)
    progress.end("complete")
    assert statuses == ["running", "complete"]


def test_the_hosts_log_tells_of_a_long_training(pack: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    module, now = pack_module(pack, "nodes.panel.monitor"), [0.0]
    progress = module.TrainingProgress(module.Session(module.Key("p", "4", "w"), can_sample=True), lambda: now[0])
    with caplog.at_level(logging.INFO, "atelier"):
        progress.phase("training", 100)
        for step in range(1, 101):
            now[0] += 1
            progress.advance(step, f"step {step}/100")
    assert [record.getMessage() for record in caplog.records] == [
        f"Train LoRA: step {step}/100" for step in (1, 31, 61, 91)]


@pytest.fixture
def monitor(pack: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, with no session of another test and no open editor."""
    module = pack_module(pack, "nodes.panel.monitor")
    monkeypatch.setattr(module, "sessions", pack_module(pack, "nodes.panel.sessions").Sessions())
    monkeypatch.setattr(module.web_server, "send_event", lambda name, data: None)
    return module


@pytest.mark.parametrize(("size", "kept"), [
    ((2048, 512), (1024, 256)), ((512, 2048), (128, 512)), ((60, 40), (60, 40))])
def test_sample_pictures_are_kept_small(monitor: Any, size: tuple[int, int], kept: tuple[int, int]) -> None:
    with monitor.training_progress(Node, can_sample=True) as progress:
        progress.measure({"step": 3})
        progress.preview(Image.new("RGBA", size, (255, 0, 0, 255)))
    jpeg, = (session.sample(3) for session in monitor.sessions.find())
    with Image.open(BytesIO(jpeg)) as picture:
        assert (picture.size, picture.format, picture.mode) == (kept, "JPEG", "RGB")


class Node:
    """A running node that no editor queued."""

    hidden = None


def test_memory_is_asked_once_a_second(monitor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now, asked = [100.0], []
    monkeypatch.setattr(monitor.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(monitor.device, "memory_usage", lambda: (asked.append(now[0]), (3, 8))[1])
    session = monitor.Session(monitor.Key("p", "4", "w"), can_sample=True)
    progress = monitor.TrainingProgress(session)
    for now[0] in (100.0, 100.5, 100.9, 101.0, 101.9):
        progress.measure({"step": 1, "loss": 0.5})
    assert asked == [100.0, 101.0]
    values = session.snapshot()["values"]
    assert (values["memory_used"], values["memory_total"], values["step"]) == (3, 8, 1)


def test_the_panels_buttons_reach_the_run(monitor: Any) -> None:
    with monitor.training_progress(Node, can_sample=True) as progress:
        session, = monitor.sessions.find()
        assert progress.run == session.key.run
        assert not (progress.stop_requested() or progress.sample_requested() or progress.continues)
        session.request_sample()
        assert progress.sample_requested() and not progress.sample_requested(), "one picture for one click"
        session.request_stop()
        assert progress.stop_requested()
        progress.end("stopped by user")
    monitor.sessions.request_continue([session])
    with monitor.training_progress(Node, can_sample=True) as progress:
        assert progress.continues


@pytest.mark.parametrize(("interrupted", "status", "message"), [(True, "cancelled", ""), (False, "failed", "no room")])
def test_a_run_that_ends_by_an_error_is_not_shown_as_running(pack: ModuleType, monitor: Any, interrupted: bool,
                                                             status: str, message: str) -> None:
    error = monitor.Interrupt() if interrupted else MemoryError("no room")
    with pytest.raises(type(error)), monitor.training_progress(Node, can_sample=False):
        raise error
    told = monitor.sessions.find()[0].snapshot()
    assert (told["status"], told["message"], told["can_sample"]) == (status, message, False)
