"""Runs that go on: from a stop, from a shorter run, for another file format or sample prompt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kit.training_run import REQUEST, After, Seen
from PIL import Image
from safetensors.torch import load_file

from atelier.progress import Progress
from atelier.train.extension import extend_shorter_run
from atelier.train.identity import RunIdentity
from atelier.train.run_folder import RunFolder


def test_another_format_or_precision_of_the_file_is_no_other_run(run) -> None:
    first = run()
    weights = load_file(first.lora)
    again = run(request=REQUEST.override(dict(lora_format="diffusers", save_dtype="fp16", save_every=2)))
    assert again.reused and again.lora == first.lora and again.folder.path == first.folder.path
    written = load_file(again.lora)
    assert {tensor.dtype for tensor in written.values()} == {torch.float16}
    assert all(name.startswith("unet.") for name in written)
    restored = load_file(run().lora)
    assert all(torch.equal(restored[name], tensor) for name, tensor in weights.items())


def test_a_run_that_was_stopped_and_kept_goes_on(run, tmp_path: Path) -> None:
    class Stop(Progress):
        def __init__(self) -> None:
            self.step = 0

        def measure(self, values) -> None:
            self.step = int(values["step"])

        def stop_requested(self) -> bool:
            return self.step == 2

    whole = load_file(run("whole", replace(REQUEST, steps=5)).lora)
    request = REQUEST.override(dict(steps=5, save_every=1))  # the same run as the whole one, which is set aside
    for folder in (tmp_path / "runs").iterdir():
        folder.rename(tmp_path / "aside")
    stopped = run("cut", request, progress=Stop())
    assert (stopped.result.status, stopped.result.step, stopped.result.total) == ("stopped by user", 2, 5)
    assert "3 steps are left; training can go on from here" in stopped.text()
    kept = run("cut", request, continue_stopped=False)
    assert kept.reused and kept.result == stopped.result
    resumed = run("cut", request)
    assert (resumed.reused, resumed.result.status, resumed.result.step) == (False, "complete", 5)
    assert resumed.lora == stopped.lora
    written = load_file(resumed.lora)
    assert all(torch.equal(written[name], tensor) for name, tensor in whole.items())
    assert run("cut", request).reused


VALIDATED = REQUEST.override(dict(monitor="validation", patience=99, validate_every=2, schedule="constant"))


def test_a_longer_run_goes_on_from_a_finished_one(run, tmp_path: Path) -> None:
    """With the weights, the validation and the best of a run that was as long from the start."""
    whole = run("whole", replace(VALIDATED, steps=7))
    for folder in (tmp_path / "runs").iterdir():
        folder.rename(tmp_path / "aside")
    short = run("short", replace(VALIDATED, steps=3))  # its end brings a validation that the longer run has not
    assert [step for step, _ in short.result.history.validation] == [2, 3]
    longer = run("longer", replace(VALIDATED, steps=7))
    assert "went on from step 3 of a shorter run" in longer.text()
    assert longer.result.history == whole.result.history
    assert (longer.result.best_step, longer.result.weights) == (whole.result.best_step, whole.result.weights)
    one, other = load_file(whole.lora), load_file(longer.lora)
    assert all(torch.equal(one[name], tensor) for name, tensor in other.items())
    assert run("short", replace(VALIDATED, steps=3)).reused


def test_a_shorter_run_starts_from_the_beginning(run) -> None:
    """Although one of the same settings has done more: its weights have learnt more than was asked for."""
    constant = REQUEST.override(dict(schedule="constant"))
    run("longer", replace(constant, steps=5))
    short = run("short", replace(constant, steps=3))
    assert "shorter run" not in short.text()
    assert (short.result.step, len(short.result.history.losses)) == (3, 3)


@pytest.mark.parametrize(("changes", "why"), [
    (dict(schedule="cosine"), "was to reach 0 at step 3 (schedule 'cosine')"),
    (dict(schedule="constant", warmup_steps=5), "its warm-up was cut to 3 steps")])
def test_a_run_that_cannot_be_made_longer_says_why(run, changes: dict[str, Any], why: str) -> None:
    run("short", REQUEST.override(dict(changes, steps=3)))
    longer = run("longer", REQUEST.override(dict(changes, steps=6)))
    assert why in longer.text() and "started from the beginning" in longer.text()
    assert len(longer.result.history.losses) == 6 and longer.result.seconds_per_step == longer.result.seconds / 6


def test_the_last_sample_is_of_the_weights_that_are_handed_on(run, tmp_path: Path) -> None:
    """Of the best step's, where a far too high rate makes the last ones worse and ends training early."""
    options = dict(learning_rate=0.3, monitor="validation", patience=2, validate_every=2, schedule="constant", steps=40,
                   sample_prompt="a fox", sample_every=100, sample_steps=2, sample_cfg=2.0)
    early = run("early", REQUEST.override(options))
    assert early.result.status == "stopped early" and early.result.best_step < early.result.step
    assert list(early.folder.drawn) == [early.result.step]
    best = run("best", REQUEST.override(dict(options, steps=early.result.best_step, patience=0)))
    assert list(best.folder.drawn) == [early.result.best_step]
    one, other = (np.asarray(Image.open(report.folder.samples[-1])) for report in (early, best))
    assert np.array_equal(one, other)
    last = run("last", REQUEST.override(dict(options, steps=early.result.step, monitor="off", patience=0)))
    assert not np.array_equal(one, np.asarray(Image.open(last.folder.samples[-1])))


def test_another_sample_prompt_draws_a_finished_run_anew_without_training(run) -> None:
    options = dict(sample_every=100, sample_steps=1)
    first = run(request=REQUEST.override(options))
    assert first.folder.samples == []
    progress = Seen()
    drawn = run(request=REQUEST.override(dict(options, sample_prompt="a fox")), progress=progress)
    assert drawn.reused and len(drawn.folder.samples) == 1 and progress.pictures == [3]
    assert drawn.result.history == first.result.history and drawn.result.seconds == first.result.seconds
    other = run(request=REQUEST.override(dict(options, sample_prompt="a bear")))
    assert other.folder.samples != drawn.folder.samples and len(other.folder.samples) == 1
    quiet = After(0)
    assert run(request=REQUEST.override(dict(options, sample_prompt="a bear")), progress=quiet).reused
    assert quiet.phases == []


def test_a_damaged_shorter_run_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = RunFolder(tmp_path / "0123-3-steps")
    folder.path.mkdir()
    folder.state.write_bytes(b"damaged")
    wanted = RunIdentity("0123", "6-steps")
    with caplog.at_level("WARNING", logger="atelier"):
        assert extend_shorter_run(tmp_path, wanted, 6, REQUEST.optimizer) == ""
    assert str(folder.state) in caplog.text
    assert not (tmp_path / str(wanted)).exists()


@pytest.mark.parametrize("with_best", [True, False])
def test_the_longest_shorter_run_is_gone_on_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_best: bool
                                                 ) -> None:
    for steps in (3, 5, 6, 7):
        folder = RunFolder(tmp_path / f"0123-{steps}-steps")
        folder.path.mkdir()
        folder.state.write_text(f"{steps}")
        if with_best:
            folder.best.write_text(f"best of {steps}")
    monkeypatch.setattr("atelier.train.extension.read_progress", lambda path: (int(path.read_text()),) * 2)
    wanted, constant = RunIdentity("0123", "2-epochs"), REQUEST.override({"schedule": "constant"}).optimizer
    assert "from step 6 of a shorter run" in extend_shorter_run(tmp_path, wanted, 6, constant)
    own = RunFolder(tmp_path / str(wanted))
    assert own.state.read_text() == "6" and own.best.exists() == with_best
    assert extend_shorter_run(tmp_path, wanted, 6, constant) == "", "it has a state of its own now"
