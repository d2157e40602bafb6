"""Configurations check themselves where they are made and name the field."""

from __future__ import annotations

import pytest
import torch

from atelier.errors import AtelierError
from atelier.train.config import LoraConfig, TrainConfig, TrainingOptions, config_from_dict
from atelier.train.devices import pick_dtype
from atelier.train.presets import PRESETS, preset


@pytest.mark.parametrize(("make", "words"), [
    (lambda: LoraConfig(rank=0), ["rank", "0"]),
    (lambda: LoraConfig(dropout=1.0), ["dropout", "1.0"]),
    (lambda: LoraConfig(targets="everything"), ["targets", "everything", "cross_attention"]),
    (lambda: TrainingOptions(validation_timesteps=4), ["validation_timesteps", "8"]),
    (lambda: TrainingOptions(monitor="off"), ["monitor", "patience"]),
    (lambda: TrainingOptions(batch_size=0), ["batch_size"]),
    (lambda: TrainConfig(), ["epochs", "steps"]),
    (lambda: TrainConfig(epochs=1, steps=1), ["epochs", "steps"]),
    (lambda: config_from_dict({"options": {"learning_rat": 1}}), ["learning_rat", "learning_rate"]),
    (lambda: config_from_dict({"preset": "nothing"}), ["nothing", "reference recipe"]),
])
def test_a_wrong_value_is_named(make, words: list[str]) -> None:
    with pytest.raises(AtelierError) as caught:
        make()
    assert all(word in str(caught.value) for word in words)


def test_the_reference_recipe_is_exact() -> None:
    recipe = preset("reference recipe")
    lora, options = recipe.lora, recipe.options
    assert (lora.rank, lora.alpha, lora.dropout, lora.targets) == (8, 16, 0.1, "attention")
    assert (options.optimizer, options.beta1, options.beta2, options.weight_decay) == ("adamw", 0.9, 0.999, 0.01)
    assert (options.learning_rate, options.batch_size, options.schedule) == (1e-4, 1, "constant")
    assert (recipe.epochs, options.patience, options.monitor, options.min_delta) == (30, 2, "epoch", 0)
    assert (options.max_grad_norm, options.min_snr_gamma, options.noise_offset, options.caption_dropout) == (0, 0, 0, 0)


def test_tables_fill_in_over_a_preset() -> None:
    config = config_from_dict({"preset": "style", "steps": 7, "seed": 3, "lora": {"rank": 4}})
    assert (config.steps, config.epochs, config.seed, config.lora.rank) == (7, 0, 3, 4)
    assert config.options == PRESETS["style"].options


def test_the_digest_follows_every_field_and_part() -> None:
    base = TrainConfig(steps=5)
    others = [TrainConfig(steps=6), TrainConfig(steps=5, seed=1), TrainConfig(LoraConfig(rank=2), steps=5)]
    assert len({base.digest("a"), base.digest("b"), *(other.digest("a") for other in others)}) == 5
    assert base.digest("a") == TrainConfig(steps=5).digest("a")


def test_whole_numbers_are_the_same_request() -> None:
    one = TrainConfig(LoraConfig(alpha=8), TrainingOptions(max_grad_norm=1), steps=1)
    other = TrainConfig(LoraConfig(alpha=8.0), TrainingOptions(max_grad_norm=1.0), steps=1)
    assert one.digest("x") == other.digest("x")


def test_bf16_is_for_processors_that_compute_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    for found, wanted in (({"avx512_bf16": True}, torch.bfloat16), ({"amx_bf16": True}, torch.bfloat16),
                          ({"avx2": True}, torch.float32)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=found: found, raising=False)
        assert pick_dtype("auto", cpu) == wanted
        assert pick_dtype("auto", cpu, sampling=True) == torch.float32
        assert pick_dtype("fp32", cpu) == torch.float32
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert pick_dtype("auto", cpu) == torch.float32
