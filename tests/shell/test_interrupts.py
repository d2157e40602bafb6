"""Ctrl-C at the worst moment: in the middle of a line of progress."""

from __future__ import annotations

import io
import os
import signal

import pytest

from atelier.progress import Interrupted
from atelier.shell.progress import ShellProgress, graceful_interrupts


class InterruptedWrite(io.RawIOBase):
    """A standard error during whose writing somebody presses Ctrl-C."""

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        signal.raise_signal(signal.SIGINT)
        return len(memoryview(data))  # type: ignore[arg-type]


@pytest.mark.skipif(os.name == "nt", reason="sends a POSIX signal")
def test_an_interrupt_within_a_line_of_progress_is_an_interrupt(monkeypatch: pytest.MonkeyPatch,
                                                                capfd: pytest.CaptureFixture[str]) -> None:
    stream = io.TextIOWrapper(io.BufferedWriter(InterruptedWrite()), write_through=True)
    monkeypatch.setattr("sys.stderr", stream)
    progress = ShellProgress()
    with graceful_interrupts():
        progress.phase("training", 5)  # a line is written, and the signal comes within it
        with pytest.raises(Interrupted):
            progress.check()
    stream.detach()
    assert "Stopping after this step" in capfd.readouterr().err
