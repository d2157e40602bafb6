"""Whose a LoRA file is: a run replaces and removes its own, and no other's."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from atelier.errors import AtelierError
from atelier.lora.file import load_lora, save_lora
from atelier.lora.weights import LoraModule
from atelier.train.run_folder import LoraOutput, RunFolder

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345678\n"


def _shelf(folder: Path, name: str = "fox", run: str = "one", format: str = "kohya") -> LoraOutput:
    return LoraOutput(folder / "loras", name, run, format)


def _learnt(folder: Path, value: float = 1.0, *, run: str = "one", steps: int = 3) -> Path:
    module = LoraModule(torch.ones(4, 8), torch.full((8, 4), value), 4.0)
    return save_lora(folder / f"source-{run}-{steps}-{value}.safetensors",
                     {"unet.mid_block.attentions.0.proj_in": module},
                     metadata={"atelier.run": run, "ss_output_name": "?", "ss_steps": str(steps)})


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder / "loras").as_posix() for path in (folder / "loras").rglob("*"))


def _up(path: Path) -> float:
    return float(next(tensor for key, tensor in load_file(path).items() if "lora_up" in key).max())


def test_a_finished_lora_called_partial_survives_the_end_of_another_run(tmp_path: Path) -> None:
    finished = _shelf(tmp_path, "fox-partial").publish(_learnt(tmp_path))
    # "one" again: the same request under another name is the same run.
    for run in ("two", "one"):
        other = _shelf(tmp_path, "fox", run)
        assert other.keep_partial(_learnt(tmp_path, 2.0, run=run)).name == "fox-partial-2.safetensors"
        assert _up(finished) == 1.0
        other.drop_partial()
        assert _files(tmp_path) == ["fox-partial.safetensors"]


def test_what_a_run_has_learnt_is_no_result_of_one_called_partial(tmp_path: Path) -> None:
    _shelf(tmp_path, "fox").keep_partial(_learnt(tmp_path, 1.0))
    assert _shelf(tmp_path, "fox-partial").publish(_learnt(tmp_path, 2.0)).name == "fox-partial-2.safetensors"


def test_cancelled_runs_of_one_name_keep_a_file_each(tmp_path: Path) -> None:
    one, two = _shelf(tmp_path, run="one"), _shelf(tmp_path, run="two")
    first, second = one.keep_partial(_learnt(tmp_path)), two.keep_partial(_learnt(tmp_path, 2.0, run="two"))
    assert first != second and (_up(first), _up(second)) == (1.0, 2.0)
    assert one.keep_partial(_learnt(tmp_path, 3.0, steps=5)) == first
    assert _up(first) == 3.0
    two.drop_partial()
    assert first.exists() and not second.exists()
    assert two.keep_partial(_learnt(tmp_path, 2.0, run="two")) == second
    one.drop_partial()
    two.drop_partial()  # past the gap that the other left
    assert _files(tmp_path) == []


def test_a_name_that_another_process_takes_meanwhile_stays_its_own(tmp_path: Path,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    def outrun(path: Path) -> Any:
        theirs = tmp_path / "loras" / "fox.safetensors"
        theirs.parent.mkdir(exist_ok=True)
        theirs.write_bytes(POINTER)
        return load_lora(path)

    monkeypatch.setattr("atelier.train.run_folder.load_lora", outrun)
    assert _shelf(tmp_path).publish(_learnt(tmp_path)).name == "fox-2.safetensors"
    assert (tmp_path / "loras" / "fox.safetensors").read_bytes() == POINTER


def test_a_file_that_cannot_be_read_is_somebody_elses(tmp_path: Path) -> None:
    (tmp_path / "loras").mkdir()
    for name in ("fox.safetensors", "fox-partial.safetensors"):
        (tmp_path / "loras" / name).write_bytes(POINTER)
    shelf = _shelf(tmp_path)
    assert shelf.publish(_learnt(tmp_path)).name == "fox-2.safetensors"
    assert shelf.keep_partial(_learnt(tmp_path)).name == "fox-partial-2.safetensors"
    shelf.drop_partial()
    assert _files(tmp_path) == ["fox-2.safetensors", "fox-partial.safetensors", "fox.safetensors"]
    assert (tmp_path / "loras" / "fox.safetensors").read_bytes() == POINTER


def test_a_longer_training_of_the_same_run_replaces_its_own_result(tmp_path: Path) -> None:
    shelf = _shelf(tmp_path, "animals/fox [red]")
    path = shelf.publish(_learnt(tmp_path, 1.0, steps=3))
    assert shelf.publish(_learnt(tmp_path, 2.0, steps=9)) == path
    assert _up(path) == 2.0 and _files(tmp_path) == ["animals", "animals/fox [red].safetensors"]


def test_a_partial_lora_has_the_form_that_was_asked_for(tmp_path: Path) -> None:
    path = _shelf(tmp_path, format="diffusers").keep_partial(_learnt(tmp_path))
    with safe_open(str(path), "pt") as file:
        assert all(key.startswith("unet.") for key in file.keys())  # noqa: SIM118 (not a mapping)
        assert file.metadata()["ss_output_name"] == "fox"


def test_a_partial_file_that_is_held_open_fails_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                       caplog: pytest.LogCaptureFixture) -> None:
    shelf = _shelf(tmp_path)
    path = shelf.keep_partial(_learnt(tmp_path))

    def held(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "The process cannot access the file", str(self))

    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING, "atelier"):
        patched.setattr(Path, "unlink", held)
        shelf.drop_partial()
    assert path.exists() and str(path) in caplog.text


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe{}"])
def test_a_damaged_report_is_named(tmp_path: Path, content: bytes) -> None:
    folder = RunFolder(tmp_path)
    assert folder.read_report() is None
    folder.write_report({"step": 3})
    assert folder.read_report() == {"step": 3}
    folder.report.write_bytes(content)
    with pytest.raises(AtelierError, match=r"report .*report\.json is damaged.*Delete that file to train again"):
        folder.read_report()
    assert folder.report.read_bytes() == content
