"""PiSSA and OLoRA: they train as PEFT's do, and what they learnt works with the original weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from kit.device import chosen_device
from kit.training import MemorySet, denoiser, tiny_unet
from kit.training_loop import request, same, train_steps
from kit.training_run import REQUEST
from safetensors.torch import load_file

from atelier.dataset.types import TrainingSet
from atelier.lora.file import load_lora, save_lora
from atelier.lora.merge import merge_into
from atelier.lora.weights import LoraModule, plain, select
from atelier.models.handle import DiffusersModel
from atelier.progress import Interrupted, Progress
from atelier.train.adapters import Adapters
from atelier.train.devices import RunPaths
from atelier.train.request.lora import TARGETS, LoraConfig
from atelier.train.run import train
from atelier.train.trainer import Trainer

KINDS = ("pissa", "olora")


def run(unet: Any) -> torch.Tensor:
    stream = torch.Generator().manual_seed(5)
    return unet(torch.randn(2, 4, 8, 8, generator=stream), torch.tensor([10, 700]),
                torch.randn(2, 77, 32, generator=stream), return_dict=False)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_training_is_pefts_and_the_file_needs_the_original_weights_alone(kind: str) -> None:
    """PEFT takes the start out of the weights. Three steps of plain descent lead both to the same change."""
    config = LoraConfig(rank=4, alpha=8, init_weights=kind)
    ours, theirs, plain_unet = tiny_unet(), tiny_unet(), tiny_unet()
    adapters = Adapters({"unet": ours}, config, seed=0)
    assert not adapters.trained()
    torch.testing.assert_close(run(ours), run(plain_unet), rtol=0, atol=2e-6)
    theirs.requires_grad_(False)
    peft.inject_adapter_in_model(peft.LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS["attention"],
                                                 init_lora_weights=kind), theirs)  # type: ignore[arg-type]
    trained = [p for p in theirs.parameters() if p.requires_grad]
    for unet, parameters in ((ours, adapters.masters), (theirs, trained)):
        optimizer = torch.optim.SGD(parameters, lr=1e-2)
        for _ in range(3):
            optimizer.zero_grad()
            run(unet).square().mean().backward()
            optimizer.step()
    assert adapters.trained()
    weights = plain(select(adapters.weights(), "unet"))
    for name, module in weights.items():
        layer: Any = theirs.get_submodule(name)
        merged = layer.base_layer.weight + layer.get_delta_weight("default")
        changed = merged.detach() - plain_unet.get_submodule(name).weight.detach()
        torch.testing.assert_close(module.delta(), changed, rtol=5e-3, atol=2e-6, msg=name)
        assert module.rank == 8 and module.alpha == 16
    merge_into(plain_unet, weights)
    torch.testing.assert_close(run(plain_unet), run(ours), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_convolutions_and_low_precision_start_from_no_change_and_come_back_from_a_file(dtype: torch.dtype,
                                                                                      tmp_path: Path) -> None:
    options = request(learning_rate=1e-3, batch_size=2, monitor="off", patience=0, steps=2)
    config = LoraConfig(rank=64, rslora=True, targets="attention_ff_conv", init_weights="pissa")
    trainer = Trainer(denoiser(dtype=dtype), MemorySet.of(4), replace(options, lora=config))
    adapters = trainer.adapters
    before = plain(adapters.weights())
    assert any(module.down.dim() == 4 for module in before.values())
    assert max(float(module.delta().abs().max()) for module in before.values()) < 1e-5
    train_steps(trainer, 2)
    after = adapters.weights()
    assert isinstance(next(iter(after.values())), LoraModule)
    save_lora(tmp_path / "a.safetensors", after)
    assert all(map(torch.equal, adapters.masters, adapters.tensors_of(load_lora(tmp_path / "a.safetensors"))))


class AtLayer(Progress):
    """Notes the layers of the phase, and interrupts after so many."""

    def __init__(self, layers: int) -> None:
        self.layers, self.name, self.total, self.done = layers, "", 0, [0]

    def phase(self, name: str, total: int) -> None:
        self.name, self.done = name, [0]
        if name == "decomposing":
            self.total = total

    def advance(self, done: int, text: str = "") -> None:
        self.done.append(done)

    def check(self) -> None:
        if self.name == "decomposing" and self.done[-1] == self.layers:
            raise Interrupted


def test_an_interrupt_stops_within_a_layer_and_the_next_run_is_an_unbroken_one(
        run, model: DiffusersModel, pictures: TrainingSet, tmp_path: Path) -> None:
    asked = replace(REQUEST, lora=replace(REQUEST.lora, init_weights="pissa"))
    broken = AtLayer(2)
    with pytest.raises(Interrupted):
        run(request=asked, progress=broken)
    assert broken.done == [0, 1, 2] and broken.total > 3
    left = [path for folder in ("loras", "runs") for path in (tmp_path / folder).rglob("*") if path.is_file()]
    assert not left
    watched = AtLayer(-1)
    resumed = run(request=asked, progress=watched)
    elsewhere = RunPaths(tmp_path / "a", tmp_path / "b", tmp_path / "cache", str(chosen_device()))
    unbroken = train("fox", model, pictures, asked, elsewhere, Progress())
    assert same(resumed.lora, unbroken.lora)
    assert watched.total == broken.total == len(adapted_layers(resumed.lora))


def adapted_layers(lora: Path) -> set[str]:
    return {key.split(".")[0] for key in load_file(lora)}
