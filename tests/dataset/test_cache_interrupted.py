"""Encoding that is interrupted, killed or finds damage: what was done stays, and the result is the same bits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from kit.encoding import SIZES, batches_encoded, encoded, reference
from kit.pictures import write_pictures

from atelier.dataset import encode as encode_module
from atelier.dataset import store as store_module
from atelier.dataset.folder import FolderOptions, read_folder
from atelier.dataset.types import Resolution, TrainingSet
from atelier.errors import AtelierError
from atelier.models.handle import DiffusersModel
from atelier.progress import Interrupted, Progress

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("checks", "kept"), [(2, 0), (3, 1), (6, 1), (7, 2)])
def test_an_interrupted_run_keeps_its_batches_and_resumes_bit_for_bit(
        data: TrainingSet, model: DiffusersModel, tmp_path: Path, checks: int, kept: int) -> None:
    class Stop(Progress):
        """Interrupts after `checks` checks; a batch makes four, the last one after writing."""

        left = checks

        def check(self) -> None:
            self.left -= 1
            if self.left < 0:
                raise Interrupted

    unbroken = encoded(data, model, tmp_path / "unbroken")
    with pytest.raises(Interrupted):
        encoded(data, model, tmp_path / "cache", Stop())
    files = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert [path.suffix for path in files] == [".safetensors"] * kept
    resumed = encoded(data, model, tmp_path / "cache")
    for index in range(len(SIZES)):
        for flip in (False, True):
            assert all(torch.equal(a, b) for a, b in zip(resumed.moments(index, flip), unbroken.moments(index, flip),
                                                         strict=True))


def test_an_interrupt_between_captions_keeps_those_that_are_done(
        data: TrainingSet, model: DiffusersModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode_module, "TEXT_BATCH", 2)

    class Stop(Progress):
        """Interrupts once the first batch of captions is done."""

        stopping = False

        def advance(self, done: int, text: str = "") -> None:
            self.stopping |= text.startswith("2 of") and text.endswith("captions")

        def check(self) -> None:
            if self.stopping:
                raise Interrupted

    with pytest.raises(Interrupted):
        encoded(data, model, tmp_path / "cache", Stop())
    assert len(list((tmp_path / "cache" / "text").rglob("*.safetensors"))) == 1


def test_a_pack_that_cannot_be_finished_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: Path, *_: object) -> None:
        path.write_bytes(b"half a pack")
        raise AtelierError("The disk is full.", "Free some space.")

    monkeypatch.setattr(store_module, "write_tensors", broken)
    store = store_module.PackStore(tmp_path)
    with pytest.raises(AtelierError, match="disk is full"):
        store.add({"key": {"mean": torch.zeros(1)}})
    assert list(tmp_path.iterdir()) == []


KILLED = """
import sys, time, torch
from pathlib import Path
from atelier.dataset.encode import encode
from atelier.dataset.folder import FolderOptions, read_folder
from atelier.dataset.join import join
from atelier.dataset.types import Resolution
from atelier.models.open import open_model
from atelier.progress import Progress

torch.set_num_threads(1)

class HangInTheSecondBatch(Progress):
    done = 0
    def advance(self, done, text=""):
        self.done = done
    def check(self):
        if self.done >= 2:
            sys.stdout.write("half\\n"); sys.stdout.flush(); time.sleep(600)

folder, model, cache = map(Path, sys.argv[1:])
encode(read_folder(folder, FolderOptions(resolution=Resolution(64))), open_model(model), cache, device="cpu",
       dtype=torch.float32, batch_size=2, progress=HangInTheSecondBatch())
"""


def test_a_killed_run_loses_at_most_a_batch(model: DiffusersModel, tmp_path: Path,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    folder, cache = write_pictures(tmp_path / "pictures é", [(64, 64)] * 5), tmp_path / "cache é"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(folder), str(model.path), str(cache)],
                               stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    try:
        assert process.stdout is not None and process.stdout.readline() == "half\n"
    finally:
        process.kill()
        process.communicate()
    seen = batches_encoded(monkeypatch)
    data = read_folder(folder, FolderOptions(resolution=Resolution(64)))
    got = encoded(data, model, cache)
    assert seen == [2, 1], "the first batch of two was kept"
    torch.testing.assert_close(got.moments(0, False)[0], reference(model, data, 0)[0], rtol=1e-4, atol=1e-5)


def test_damaged_packs_are_encoded_again(data: TrainingSet, model: DiffusersModel, tmp_path: Path,
                                     caplog: pytest.LogCaptureFixture) -> None:
    first = encoded(data, model, tmp_path / "cache")
    packs = sorted((tmp_path / "cache").rglob("*.safetensors"))
    packs[0].write_bytes(packs[0].read_bytes()[:100])
    packs[-1].write_bytes(b"")
    again = encoded(data, model, tmp_path / "cache")
    assert len([record for record in caplog.records if "will be made again" in record.message]) == 2
    assert torch.equal(first.moments(0, True)[0], again.moments(0, True)[0])
    assert torch.equal(first.text(0, 0)["embeds"], again.text(0, 0)["embeds"])
