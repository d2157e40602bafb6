"""What several processes agree on before they train together, and how they learn of each other's end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from kit.training_loop import QUIET, request

from atelier.errors import AtelierError
from atelier.progress import Interrupted
from atelier.train import joint_run, process_group, process_watch
from atelier.train.identity import RunIdentity
from atelier.train.joint_run import begun_with, check_alike, sharers
from atelier.train.process_group import ProcessGroup, join_processes
from atelier.train.process_watch import ProcessWatch
from atelier.train.processes import ALONE, OtherProcessFailed, Processes
from atelier.train.request.request import TrainRequest
from atelier.train.run_folder import RunFolder

WANTED = request(QUIET, batch_size=2, steps=6)


class Several(Processes):
    """Three, of which the others give what is said here."""

    count = 3

    def __init__(self, *others: Any) -> None:
        self.others = others

    def exchange(self, value: Any) -> list[Any]:
        return [value, *self.others]


def identity(wanted: TrainRequest) -> RunIdentity:
    return RunIdentity(f"batch {wanted.optimizer.batch_size}", f"{wanted.steps}-steps")


def begin(runs: Path, processes: int, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """The folder of an unfinished run that so many processes began."""
    folder = RunFolder(runs / str(identity(joint_run.with_batches_of(WANTED, processes))))
    folder.path.mkdir(parents=True)
    folder.state.write_text(str(processes))

    def read(path: Path) -> int:
        if not path.read_text().isdecimal():
            raise AtelierError("It is damaged.", "Delete it.")
        return int(path.read_text())

    monkeypatch.setattr(joint_run, "read_processes", read)
    return folder


def test_a_run_goes_on_with_the_batches_of_those_that_began_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert begun_with(WANTED, Several(), tmp_path, identity) == 3
    folder = begin(tmp_path, 2, monkeypatch)
    assert begun_with(WANTED, Several(), tmp_path, identity) == 2
    assert begun_with(replace(WANTED, steps=7), Several(), tmp_path, identity) == 3, "a run of another length"
    folder.state.write_text("damaged")
    assert begun_with(WANTED, Several(), tmp_path, identity) == 3
    folder.state.write_text("2")
    folder.write_report({})
    assert begun_with(WANTED, Several(), tmp_path, identity) == 3, "that run is finished"
    folder.report.unlink()
    begin(tmp_path, 3, monkeypatch)
    assert begun_with(WANTED, Several(), tmp_path, identity) == 3, "they have a run of their own"


def test_batches_too_small_for_a_picture_each_are_not_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                                   ) -> None:
    begin(tmp_path, 1, monkeypatch)
    for count, begun in ((2, 1), (3, 3)):
        processes = Several()
        processes.count = count
        assert begun_with(WANTED, processes, tmp_path, identity) == begun


def test_processes_that_would_train_something_else_are_named() -> None:
    own = RunIdentity("0123", "6-steps")
    check_alike(Several(str(own), str(own)), own)
    with pytest.raises(AtelierError, match=r"The processes 2 would train something else than process 0"):
        check_alike(Several(str(own), "4567-6-steps"), own)
    with pytest.raises(AtelierError, match=r"The processes 1, 2 would train"):
        check_alike(Several("4567-6-steps", "89ab-6-steps"), own)


def test_one_process_has_a_folder_to_itself(tmp_path: Path) -> None:
    assert sharers(tmp_path / "cache", ALONE) == (0, 1)
    assert not (tmp_path / "cache").exists()
    assert ALONE.file_of_first(lambda: b"content") == b"content"


@pytest.fixture
def group() -> Iterator[ProcessGroup]:
    """Of one process, which talks to itself as it would to others."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1, timeout=timedelta(seconds=20))
    try:
        yield ProcessGroup(0, 1, torch.device("cpu"))
    finally:
        dist.destroy_process_group()


def test_what_one_process_raises_is_told_to_the_others(group: ProcessGroup, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    worst = group._worst
    monkeypatch.setattr(group, "_worst", lambda outcome: told.append(outcome) or worst(outcome))
    for error in (Interrupted(), ValueError("mine"), OtherProcessFailed("Theirs.", "See there.")):
        with pytest.raises(type(error)) as caught, group.together():
            raise error
        assert caught.value is error
    with group.together():
        pass
    assert told == [1, 2, 0], "of another's failure, nobody is left to be told"


@pytest.mark.parametrize(("theirs", "error"), [(1, Interrupted), (2, OtherProcessFailed)])
def test_what_another_process_raises_ends_this_one(group: ProcessGroup, monkeypatch: pytest.MonkeyPatch, theirs: int,
                                                   error: type[Exception]) -> None:
    monkeypatch.setattr(group, "_worst", lambda outcome: max(outcome, theirs))
    done = []
    with pytest.raises(error), group.together():
        done.append("own part")
    assert done == ["own part"]


@pytest.mark.parametrize("content", [b"", b"\0content\xff"])
def test_a_file_of_the_first_process_comes_whole(group: ProcessGroup, content: bytes) -> None:
    assert group.file_of_first(lambda: content) == content
    assert group.from_first(lambda: {"a": [1, None]}) == {"a": [1, None]}
    assert group.any(True) and not group.any(False)


@pytest.mark.parametrize(("local", "found"), [("0", "cuda:0"), ("1", "cuda:1"), ("2", None)])
def test_each_process_of_a_machine_has_a_card_of_its_own(monkeypatch: pytest.MonkeyPatch, local: str,
                                                         found: str | None) -> None:
    monkeypatch.setattr(process_group, "pick_device", torch.device)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", local)
    assert process_group._own_device("cuda:0") == torch.device("cuda:0"), "as it was asked for"
    assert process_group._own_device("cpu") == torch.device("cpu")
    if found:
        assert process_group._own_device("cuda") == torch.device(found)
    else:
        with pytest.raises(AtelierError, match=r"3 processes or more were started on a machine with 2 cards"):
            process_group._own_device("cuda")


def test_processes_that_do_not_meet_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(AtelierError, match=r"do not find each other \(.*RANK.*accelerate launch"), \
            join_processes("cpu"):
        pytest.fail("it trains alone")


class GoneStore:
    """The store of a process that is on its way out."""

    def __init__(self) -> None:
        self.asked = 0

    def set(self, key: str, value: str) -> None:
        self.asked += 1
        raise RuntimeError("Connection reset by peer")


def test_a_process_whose_others_are_lost_ends(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
                                              ) -> None:
    monkeypatch.setattr(process_watch, "INTERVAL", 0.01)
    monkeypatch.setattr(process_watch, "SILENCE", 0.2)
    store: Any = GoneStore()
    ended, codes, began = threading.Event(), [], time.monotonic()

    def end(code: int) -> None:
        codes.append((code, time.monotonic() - began))
        ended.set()

    with caplog.at_level(logging.ERROR, logger="atelier"):
        watch = ProcessWatch(store, 1, 3, end)
        assert ended.wait(20)
        watch.close()
    (code, seconds), = codes
    assert code == 1 and seconds > 0.2 and store.asked > 1, "a store that does not answer once is no reason"
    assert "Process 0, 2 of this training has been silent" in caplog.text
