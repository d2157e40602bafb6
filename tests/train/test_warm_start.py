"""Training that starts from a LoRA: its change is what the untrained adapters make, and what counts is its content."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from kit.training import MemorySet, denoiser, tiny_unet
from kit.training_loop import request, train_steps

from atelier.errors import AtelierError
from atelier.lora.file import save_lora
from atelier.lora.weights import LoraModule
from atelier.train.request.lora import LoraConfig
from atelier.train.trainer import Trainer
from atelier.train.warm_start import file_digest


def trainer(config: LoraConfig) -> Trainer:
    options = request(learning_rate=1e-2, batch_size=2, monitor="off", patience=0, steps=4)
    return Trainer(denoiser(tiny_unet()), MemorySet.of(4), replace(options, lora=config))


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, LoraModule]]:
    run = trainer(LoraConfig(rank=4, alpha=2))
    train_steps(run, 4)
    path = tmp_path_factory.mktemp("first") / "first.safetensors"
    weights = run.adapters.weights()
    save_lora(path, weights)
    return path, weights


@pytest.mark.parametrize("config", [LoraConfig(rank=4, alpha=2), LoraConfig(rank=6, alpha=3),
                                    LoraConfig(rank=8, rslora=True, targets="attention_ff")], ids=str)
def test_the_change_is_that_of_the_file(first, config: LoraConfig) -> None:
    path, weights = first
    run = trainer(replace(config, init_lora=str(path)))
    found = run.adapters.weights()
    assert set(weights) <= set(found)
    for name, module in found.items():
        expected = weights[name].delta() if name in weights else torch.zeros_like(module.delta())
        torch.testing.assert_close(module.delta(), expected, rtol=1e-4, atol=1e-7)
    before = run.adapters.snapshot()
    train_steps(run, 1)
    assert not all(torch.equal(a, b) for a, b in zip(before, run.adapters.masters, strict=True))


def test_a_smaller_rank_keeps_the_largest_singular_values(first) -> None:
    path, weights = first
    found = trainer(LoraConfig(rank=2, init_lora=str(path))).adapters.weights()
    name = next(iter(weights))
    left, values, right = torch.linalg.svd(weights[name].delta().flatten(1))
    expected = left[:, :2] @ torch.diag(values[:2]) @ right[:2]
    torch.testing.assert_close(found[name].delta().flatten(1), expected, rtol=1e-3, atol=1e-6)


def test_layers_that_are_not_trained_are_told(first) -> None:
    with pytest.raises(AtelierError, match=r"changes \d+ layers of its \d+ that are not trained"):
        trainer(LoraConfig(rank=4, targets="cross_attention", init_lora=str(first[0])))


def test_the_content_of_the_file_counts_and_not_its_path(first, tmp_path: Path) -> None:
    path, weights = first
    copy = shutil.copy(path, tmp_path / "copy.safetensors")
    other = save_lora(tmp_path / "other.safetensors", dict(list(weights.items())[1:]))
    assert file_digest(path) == file_digest(Path(copy)) != file_digest(other)


@pytest.mark.parametrize(("options", "says"), [
    (dict(kind="lokr"), r"other\.safetensors holds (\d+) of \1 layers of kinds \(LoKr \1\) that training cannot start"),
    (dict(kind="dora"), r"other\.safetensors is a DoRA, which training cannot start from")])
def test_a_lora_of_another_kind_is_refused(tmp_path: Path, options: dict[str, str], says: str) -> None:
    run = trainer(LoraConfig(rank=4, **options))
    train_steps(run, 1)
    path = save_lora(tmp_path / "other.safetensors", run.adapters.weights())
    with pytest.raises(AtelierError, match=says):
        trainer(LoraConfig(rank=4, init_lora=str(path)))
