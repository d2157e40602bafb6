"""Trained LoHa, LoKr and OFT: their files hold what PEFT trains, and runs of them go on bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from kit.training import MemorySet, denoiser
from kit.training_loop import request, train_steps
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file
from torch import nn

from atelier.errors import AtelierError
from atelier.lora.file import load_lora, save_lora
from atelier.train.adapters import Adapters
from atelier.train.early_stopping import EarlyStopping
from atelier.train.request.lora import LoraConfig
from atelier.train.run_state import RunState
from atelier.train.state_file import load_state, save_state
from atelier.train.trainer import Trainer

CONFIGS = [LoraConfig(rank=4, kind="loha"), LoraConfig(rank=4, alpha=2, kind="lokr", lokr_factor=4),
           LoraConfig(rank=4, kind="oft", targets="attention_ff_conv")]


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
        named = {"loha": {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"}, "oft": {"oft_blocks"},
                 "lokr": {"lokr_w1", "lokr_w2_a", "lokr_w2_b"} | (endings & {"lokr_w2"})}[config.kind]
        assert endings == {*named, "alpha"}
        assert {float(state[key]) for key in state if key.endswith(".alpha")} == {
            0.0 if config.kind == "oft" else config.alpha}
        assert all(key.startswith("lora_unet_down_blocks_") or "_mid_block_" in key or "_up_blocks_" in key
                   for key in state)


def test_lycoris_reads_an_oft_and_turns_the_outputs_as_it_was_trained(tmp_path: Path) -> None:
    modules = pytest.importorskip("lycoris.modules")
    whole = trainer(LoraConfig(rank=5, kind="oft", targets="attention_ff_conv"))  # 5 divides no layer's channels
    train_steps(whole, 3)
    save_lora(tmp_path / "a.safetensors", whole.adapters.weights())
    state, seen = load_file(tmp_path / "a.safetensors"), set()
    for path, layer in whole.denoiser.unet.named_modules():
        if not isinstance(layer, BaseTunerLayer):
            continue
        base: Any = layer.get_base_layer()
        assert base.bias is None or base.bias.any()
        own = {name.split(".", 1)[1]: state[name] for name in state if name.startswith(
            f"lora_unet_{path.replace('.', '_')}.")}
        assert set(own) == {"oft_blocks", "alpha"} and own["oft_blocks"].shape[1] <= 5
        plain: Any = nn.Conv2d(base.in_channels, base.out_channels, base.kernel_size, base.stride, base.padding) \
            if isinstance(base, nn.Conv2d) else nn.Linear(base.in_features, base.out_features, base.bias is not None)
        plain.load_state_dict(base.state_dict())
        with torch.no_grad():
            made = modules.DiagOFTModule.make_module_from_state_dict("x", plain, rescale=None, **own)
            sample = torch.randn(2, 3, base.in_features) if isinstance(base, nn.Linear) else torch.randn(
                2, base.in_channels, 6, 6)
            before = base(sample)
            made.apply_to()
            torch.testing.assert_close(layer(sample), made.eval()(sample), rtol=1e-4, atol=1e-5, msg=path)
            assert (layer(sample) - before).abs().max() > 1e-4, path
        seen.add((type(base), own["oft_blocks"].shape[1]))
    assert {(kind, 4) for kind in (nn.Linear, nn.Conv2d)} <= seen


def test_an_oft_needs_channels_that_part_into_blocks() -> None:
    with pytest.raises(AtelierError, match="13 output channels"):
        Adapters({"network": nn.Sequential(nn.Linear(4, 13))}, LoraConfig(kind="oft"), 0, layers={"network": "0"})
