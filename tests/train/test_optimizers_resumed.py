"""Training with the real packages' optimisers resumes to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from kit.training import MemorySet, denoiser
from kit.training_loop import request, train_steps

from atelier.errors import AtelierError
from atelier.train.early_stopping import EarlyStopping
from atelier.train.nested_state import flattened, nested
from atelier.train.request.recipe import OPTIMIZERS
from atelier.train.run_state import RunState
from atelier.train.state_file import load_state, save_state
from atelier.train.trainer import Trainer

PACKAGES = {"prodigy": "prodigyopt", "lion": "pytorch_optimizer", "came": "pytorch_optimizer",
            "adafactor": "pytorch_optimizer", **{name: "bitsandbytes" for name in OPTIMIZERS if "8bit" in name}}


def trainer(**options: Any) -> Trainer:
    wanted = request(dict(rank=64, targets="attention_ff"), dict(monitor="off", patience=0, schedule="constant"),
                     options, steps=12)
    return Trainer(denoiser(), MemorySet.of(4), wanted)


def state_of(run: Trainer) -> dict[str, Any]:
    """Every tensor of the optimiser's state dict by its path, and its type."""
    tensors: dict[str, torch.Tensor] = {}
    flattened(run.optimizer.state_dict(), "", tensors)
    return tensors


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=[pytest.mark.skipif(name.startswith("paged") and not torch.cuda.is_available(),
                                                 reason="paged memory is a card's")]) for name in OPTIMIZERS])
def test_a_run_goes_on_bit_for_bit(name: str, tmp_path: Path) -> None:
    if name in PACKAGES:
        pytest.importorskip(PACKAGES[name])
    options = dict(optimizer=name, learning_rate=1.0 if name == "prodigy" else 1e-3)
    whole, cut, resumed = (trainer(**options) for _ in range(3))
    start = whole.adapters.snapshot()
    train_steps(whole, 6)
    train_steps(cut, 3)
    save_state(tmp_path / "state.safetensors", cut, RunState(early_stopping=EarlyStopping(0), step=3))
    load_state(tmp_path / "state.safetensors", resumed)
    for step in range(3, 6):
        resumed.train_step(step, resumed.initial_loss_scale)
    assert any(not torch.equal(one, other) for one, other in zip(start, whole.adapters.masters, strict=True))
    for one, other in zip(whole.adapters.masters, resumed.adapters.masters, strict=True):
        assert torch.equal(one, other)
    wanted, found = state_of(whole), state_of(resumed)
    assert wanted and wanted.keys() == found.keys()
    for key, tensor in wanted.items():
        assert tensor.dtype == found[key].dtype and torch.equal(tensor, found[key]), key


def test_eight_bit_states_are_kept_as_such(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    run = trainer(optimizer="adamw8bit")
    train_steps(run, 1)
    assert any(tensor.dtype == torch.uint8 for tensor in state_of(run).values())


class Counting(torch.optim.SGD):
    """Keeps types that torch would change while it loads them: half precision and whole numbers."""

    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                state["half"] = torch.full_like(parameter, 0.1, dtype=torch.bfloat16)
                state["count"] = torch.tensor([2**40 + 1])
        return super().step(closure)


def test_no_type_changes_on_the_way(tmp_path: Path) -> None:
    first, second = trainer(), trainer()
    for run in (first, second):
        run.optimizer = Counting(run.adapters.masters, lr=1e-3)
        run.optimizer.param_groups[0]["base_lr"] = 1e-3
    train_steps(first, 1)
    path = tmp_path / "state.safetensors"
    save_state(path, first, RunState(early_stopping=EarlyStopping(0), step=1))
    load_state(path, second)
    state = second.optimizer.state[second.adapters.masters[0]]
    assert (state["half"].dtype, state["count"].dtype) == (torch.bfloat16, torch.int64)
    assert state["count"].item() == 2**40 + 1


def test_whatever_is_nested_comes_back() -> None:
    tensors: dict[str, torch.Tensor] = {}
    value = {0: {"a": {"b": torch.ones(2), 3: (1, [2.5, None])}, "empty": {}}, "x": float("inf"), "on": True}
    there = nested(flattened(value, "optimizer", tensors), tensors)
    assert torch.equal(there[0]["a"].pop("b"), value[0]["a"].pop("b")) and there == value
    with pytest.raises(AtelierError, match="set"):
        flattened({"a": {1, 2}}, "optimizer", tensors)


def test_a_state_of_release_2_is_read(tmp_path: Path) -> None:
    import json

    from safetensors.torch import save_file

    first, second = trainer(), trainer()
    train_steps(first, 2)
    old = first.optimizer.state_dict()
    tensors = {f"optimizer/{index}/{key}": value for index, entries in old["state"].items()
               for key, value in entries.items()}
    tensors |= {f"weight/{index}": weight.detach().clone() for index, weight in enumerate(first.adapters.masters)}
    facts = {**RunState(early_stopping=EarlyStopping(0), step=2).as_dict(), "total": 12,
             "groups": old["param_groups"], "scalars": {}}
    save_file(tensors, tmp_path / "state.safetensors", {"atelier": json.dumps(facts)})
    load_state(tmp_path / "state.safetensors", second)
    for run in (first, second):
        run.train_step(2, run.initial_loss_scale)
    assert all(torch.equal(a, b) for a, b in zip(first.adapters.masters, second.adapters.masters, strict=True))
