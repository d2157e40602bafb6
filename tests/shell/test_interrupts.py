"""Ctrl-C at the worst moment: in the middle of a line of progress."""

from __future__ import annotations

import io
import os
import signal
import threading
from functools import partial

import pytest
from tqdm import tqdm

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


@pytest.mark.skipif(os.name == "nt", reason="sends a POSIX signal")
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_second_interrupt_ends_at_once_and_handlers_are_given_back(kind: signal.Signals) -> None:
    before = signal.getsignal(kind)
    with pytest.raises(KeyboardInterrupt), graceful_interrupts():
        signal.raise_signal(kind)
        with pytest.raises(Interrupted):
            ShellProgress().check()
        signal.raise_signal(kind)
    assert signal.getsignal(kind) is before
    with graceful_interrupts():
        ShellProgress().check()  # an interrupt of earlier work ends no later work


def test_work_in_another_thread_leaves_signals_alone() -> None:
    before, found = signal.getsignal(signal.SIGINT), []

    def work() -> None:
        with graceful_interrupts():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [before] and signal.getsignal(signal.SIGINT) is before


class Terminal(io.StringIO):
    """A standard error that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("total", "shown"), [(5, "2/5 "), (100_000, "2/100000 "), (100_001, "2.00/100k ")])
def test_on_a_terminal_a_bar_shows_how_far_the_work_is(monkeypatch: pytest.MonkeyPatch, total: int, shown: str) -> None:
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    # Drawn at every step, on a line that no bar of another test has.
    monkeypatch.setattr("tqdm.tqdm", partial(tqdm, mininterval=0, miniters=0, position=0))
    progress = ShellProgress()
    progress.phase("encoding", total)
    progress.advance(1, "loss 0.5")
    progress.advance(2, "loss 0.25")
    last = terminal.getvalue().rsplit("\r", 1)[1]
    assert last.startswith("encoding:") and shown in last and "loss 0.25" in last
    progress.close()
    assert not terminal.getvalue().rsplit("\r", 2)[1].strip(), "the bar is removed"
    told = terminal.getvalue()
    progress.close()
    progress.advance(3)
    assert terminal.getvalue() == told, "nothing is drawn on a bar that is gone"
