"""Trained LoHa and LoKr: their files hold what PEFT trains, and runs of them go on bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from kit.training import MemorySet, denoiser
from kit.training_loop import request, train_steps
from safetensors.torch import load_file

from atelier.lora.file import load_lora, save_lora
from atelier.train.early_stopping import EarlyStopping
from atelier.train.request.lora import LoraConfig
from atelier.train.run_state import RunState
from atelier.train.state_file import load_state, save_state
from atelier.train.trainer import Trainer

CONFIGS = [LoraConfig(rank=4, kind="loha"), LoraConfig(rank=4, alpha=2, kind="lokr", lokr_factor=4)]


def trainer(config: LoraConfig) -> Trainer:
    options = request(learning_rate=1e-2, batch_size=2, monitor="off", patience=0, steps=4)
    return Trainer(denoiser(), MemorySet.of(4), replace(options, lora=config))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.kind)
def test_training_goes_on_from_its_state_and_the_best_from_its_file_bit_for_bit(config: LoraConfig, tmp_path: Path
                                                                                ) -> None:
    whole, cut = trainer(config), trainer(config)
    train_steps(whole, 4)
    train_steps(cut, 2)
    save_state(tmp_path / "state.safetensors", cut, RunState(early_stopping=EarlyStopping(3), step=2))
    resumed = trainer(config)
    load_state(tmp_path / "state.safetensors", resumed)
    for step in (2, 3):
        resumed.train_step(step, resumed.initial_loss_scale)
    assert resumed.adapters.trained()
    assert all(map(torch.equal, whole.adapters.masters, resumed.adapters.masters))
    save_lora(tmp_path / "best.safetensors", whole.adapters.weights())
    assert all(map(torch.equal, whole.adapters.masters,
                   resumed.adapters.tensors_of(load_lora(tmp_path / "best.safetensors"))))


def test_files_bear_lycoris_names_and_alphas(tmp_path: Path) -> None:
    for config in CONFIGS:
        adapters = trainer(config).adapters
        for master in adapters.masters:
            master.data.fill_(0.1)
        save_lora(tmp_path / "a.safetensors", adapters.weights())
        state = load_file(tmp_path / "a.safetensors")
        endings = {key.rsplit(".", 1)[1] for key in state}
        assert endings == ({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "alpha"} if config.kind == "loha" else
                           {"lokr_w1", "lokr_w2_a", "lokr_w2_b", "alpha"} | (endings & {"lokr_w2"}))
        assert {float(state[key]) for key in state if key.endswith(".alpha")} == {config.alpha}
        assert all(key.startswith("lora_unet_down_blocks_") or "_mid_block_" in key or "_up_blocks_" in key
                   for key in state)
