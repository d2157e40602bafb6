"""A training request: its parts check themselves and name the field, and overrides come over the preset in order."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from atelier.errors import AtelierError
from atelier.shell.train_file import read_train_file
from atelier.train.devices import pick_device, pick_dtype
from atelier.train.request.keyword_arguments import keyword_arguments
from atelier.train.request.levels import LevelConfig
from atelier.train.request.lora import LoraConfig
from atelier.train.request.presets import PRESETS, build_request
from atelier.train.request.recipe import CaptionConfig, LossConfig, OptimizerConfig, ValidationConfig
from atelier.train.request.request import FIELDS, PARTS, TrainRequest


@pytest.mark.parametrize(("make", "words"), [
    (lambda: LoraConfig(rank=0), ["rank", "0"]),
    (lambda: LoraConfig(dropout=1.0), ["dropout", "1.0"]),
    (lambda: LoraConfig(targets="everything"), ["targets", "everything", "cross_attention"]),
    (lambda: ValidationConfig(validation_timesteps=4), ["validation_timesteps", "8"]),
    (lambda: ValidationConfig(monitor="off"), ["monitor", "patience"]),
    (lambda: OptimizerConfig(batch_size=-1), ["batch_size"]),
    (lambda: OptimizerConfig(optimizer="numpy.Lion"), ["optimizer", "numpy.Lion", "adafactor"]),
    (lambda: OptimizerConfig(optimizer_args="eps=1e-6, 3"), ["eps=1e-6, 3"]),
    (lambda: OptimizerConfig(optimizer_args="eps=open('x')"), ["open"]),
    (lambda: OptimizerConfig(optimizer_args="3"), ["'3'", "eps=1e-6"]),
    (lambda: OptimizerConfig(optimizer_args="eps=1)(eps=2"), ["eps=1)(eps=2"]),
    (lambda: OptimizerConfig(optimizer_args="**{'eps': 1}"), ["**{'eps': 1}"]),
    (lambda: OptimizerConfig(optimizer_args="eps=1" + " " * 996), ["'eps=1 ", "cannot be read"]),
    (lambda: CaptionConfig(tag_dropout=0.25), ["tag_dropout is 0.25", "caption_variants is 1"]),
    (lambda: OptimizerConfig(optimizer="prodigy", lora_plus_ratio=4.0), ["lora_plus_ratio", "Prodigy"]),
    (lambda: LevelConfig(min_timestep=600, max_timestep=600), ["min_timestep", "600"]),
    (lambda: LossConfig(loss="l3"), ["loss", "l3", "smooth_l1"]),
    (lambda: LossConfig(huber_c=0.0), ["huber_c", "0.0"]),
    (lambda: LoraConfig(target_pattern="("), ["target_pattern", "("]),
    (lambda: LoraConfig(rank_pattern="attn2 = 0"), ["rank_pattern", "attn2 = 0"]),
    (lambda: LoraConfig(rank_pattern="attn2"), ["rank_pattern", "attn2"]),
    (lambda: LoraConfig(kind="dora", rank_dropout=0.1), ["rank_dropout", "dora"]),
    (lambda: LoraConfig(kind="lokr", dropout=0.1), ["dropout", "lokr"]),
    (lambda: LoraConfig(kind="dora", init_weights="pissa"), ["init_weights", "dora", "pissa"]),
    (lambda: LoraConfig(init_weights="svd"), ["init_weights", "svd", "olora"]),
    (lambda: LoraConfig(kind="oft", rank=1), ["rank", "oft", "2"]),
    (lambda: LoraConfig(kind="oft", rank_pattern="attn2 = 1"), ["rank", "oft"]),
    (lambda: LoraConfig(kind="boft"), ["boft", "oft"]),
    (lambda: LoraConfig(kind="lokr", lokr_factor=1), ["lokr_factor", "1"]),
    (lambda: build_request("style", {"kind": "loha", "lora_format": "diffusers"}), ["lora_format", "loha", "kohya"]),
    (lambda: build_request("style", {"lora_format": "a1111"}), ["lora_format", "a1111", "kohya, diffusers"]),
    (lambda: build_request("style", {"kind": "loha", "lora_plus_ratio": 4.0}), ["lora_plus_ratio", "loha"]),
    (lambda: TrainRequest(), ["epochs", "steps"]),
    (lambda: TrainRequest(epochs=1, steps=1), ["epochs", "steps"]),
    (lambda: build_request("style", {"learning_rat": 1}), ["learning_rat", "learning_rate"]),
    (lambda: build_request("nothing"), ["nothing", "reference recipe"]),
    (lambda: build_request("style", {"steps": -4}), ["steps", "-4"]),
    (lambda: build_request(None, {"rank": 4}), ["epochs", "steps"]),
])
def test_a_wrong_value_is_named(make, words: list[str]) -> None:
    with pytest.raises(AtelierError) as caught:
        make()
    assert all(word in str(caught.value) for word in words)


def test_arguments_as_long_as_a_person_would_write_are_read() -> None:
    text = "eps=1e-6, betas=(0.9, 0.99), mode='a', on=True" + " " * 1000
    assert keyword_arguments(text[:1000]) == {"eps": 1e-6, "betas": (0.9, 0.99), "mode": "a", "on": True}
    with pytest.raises(AtelierError) as caught:
        keyword_arguments(text[:1001])
    assert text[:80] in str(caught.value) and text[:81] not in str(caught.value)
    assert keyword_arguments(" ") == {}


def test_two_variants_are_enough_to_leave_tags_out() -> None:
    assert CaptionConfig(tag_dropout=0.25, caption_variants=2).tag_dropout == 0.25


def test_the_reference_recipe_is_exact() -> None:
    recipe = build_request("reference recipe")
    lora, optimizer, loss, validation = recipe.lora, recipe.optimizer, recipe.loss, recipe.validation
    assert (lora.rank, lora.alpha, lora.dropout, lora.targets) == (8, 16, 0.1, "attention")
    betas = (optimizer.beta1, optimizer.beta2)
    assert (optimizer.optimizer, betas, optimizer.weight_decay) == ("adamw", (0.9, 0.999), 0.01)
    assert (optimizer.learning_rate, optimizer.batch_size, optimizer.schedule) == (1e-4, 1, "constant")
    assert (recipe.epochs, validation.patience, validation.monitor, validation.min_delta) == (30, 2, "epoch", 0)
    assert (optimizer.max_grad_norm, loss.min_snr_gamma, loss.noise_offset) == (0, 0, 0)
    assert recipe.captions.caption_dropout == 0


@pytest.mark.parametrize(("name", "lora", "rate", "shift"), [
    # As the commands in sd-scripts' and musubi-tuner's documentation have them.
    ("anima", (8, 1), 1e-4, 1.0), ("krea 2", (32, 32), 1e-4, 2.5), ("z-image", (32, 1), 1e-4, 2.0),
    ("qwen-image", (16, 1), 5e-5, 2.2), ("sd 3.5", (16, 1), 1e-4, 1.0)])
def test_presets_named_after_a_model_are_the_published_ones(name: str, lora: tuple[int, int], rate: float,
                                                            shift: float) -> None:
    preset = PRESETS[name]
    assert (preset.lora.rank, preset.lora.alpha, preset.optimizer.learning_rate) == (*lora, rate)
    levels = preset.levels
    assert (levels.level_distribution, levels.level_shift, levels.shift_value) == ("logit_normal", "value", shift)


@pytest.mark.parametrize("name", PRESETS)
def test_a_sample_prompt_changes_nothing_else_of_a_preset(name: str) -> None:
    preset, request = PRESETS[name], build_request(name, {"sample_prompt": "a cat"})
    assert request.samples.sample_prompt == "a cat"
    assert all(getattr(request, part) == getattr(preset, part) for part in PARTS if part != "samples")
    assert (request.steps, request.epochs, request.seed) == (preset.steps, preset.epochs, preset.seed)


def test_of_two_values_the_later_counts() -> None:
    request = build_request("style", {"rank": 4, "learning_rate": 1e-3}, {"rank": 6, "seed": 3})
    assert (request.lora.rank, request.lora.alpha, request.optimizer.learning_rate, request.seed) == (6, 32, 1e-3, 3)


@pytest.mark.parametrize(("length", "expected"), [({"steps": 7}, (0, 7)), ({"epochs": 4}, (4, 0)),
                                                  ({"epochs": 0}, (30, 0)), ({"steps": 7, "epochs": 0}, (0, 7))])
def test_a_length_replaces_the_presets_in_whatever_unit(length: dict[str, int], expected: tuple[int, int]) -> None:
    request = build_request("reference recipe", length)
    assert (request.epochs, request.steps) == expected


def test_a_name_stands_in_one_part_only() -> None:
    assert len(FIELDS) == 3 + sum(len(config.__dataclass_fields__) for config in PARTS.values())


def test_the_name_that_earlier_releases_used_is_taken() -> None:
    assert build_request("style", {"form": "diffusers"}).output.lora_format == "diffusers"


def test_whole_numbers_are_the_same_request() -> None:
    assert (build_request(None, {"alpha": 8, "max_grad_norm": 1, "steps": 1})
            == build_request(None, {"alpha": 8.0, "max_grad_norm": 1.0, "steps": 1}))


@pytest.mark.parametrize("name", PRESETS)
def test_a_file_for_the_shell_gives_the_same_request(name: str, tmp_path: Path) -> None:
    path = tmp_path / "train.toml"
    path.write_text(f'''name = "x"
model = "m.safetensors"
preset = "{name}"
seed = 5
[data]
folder = "pictures"
[lora]
alpha = 2.5
[options]
noise_offset = 0.07
form = "diffusers"
''', encoding="utf-8")
    assert read_train_file(path).request == build_request(
        name, {"alpha": 2.5}, {"noise_offset": 0.07, "lora_format": "diffusers"}, {"seed": 5})


def test_bf16_is_for_processors_that_compute_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    for capabilities, wanted in (({"avx512_bf16": True}, torch.bfloat16), ({"amx_bf16": True}, torch.bfloat16),
                                 ({"avx2": True}, torch.float32)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda known=capabilities: known, raising=False)
        assert pick_dtype("auto", cpu) == wanted
        assert pick_dtype("auto", cpu, sampling=True) == torch.float32
        assert pick_dtype("fp32", cpu) == torch.float32
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert pick_dtype("auto", cpu) == torch.float32


def test_the_file_that_training_starts_from_is_looked_for_beside_the_configuration(tmp_path: Path) -> None:
    path = tmp_path / "train.toml"
    path.write_text('name = "x"\nmodel = "m.safetensors"\nsteps = 3\n[data]\nfolder = "p"\n'
                    '[lora]\ninit_lora = "first.safetensors"\n', encoding="utf-8")
    assert read_train_file(path).request.lora.init_lora == str(tmp_path / "first.safetensors")


@pytest.mark.parametrize(("card", "capability", "wanted"), [
    ("NVIDIA GeForce GTX 1660 Ti", (7, 5), torch.float32), ("NVIDIA T1000 8GB", (7, 5), torch.float32),
    ("NVIDIA GeForce RTX 2070", (7, 5), torch.float16), ("NVIDIA GeForce GTX 1080", (6, 1), torch.float16),
    ("NVIDIA GeForce RTX 3060", (8, 6), torch.bfloat16)])
def test_the_type_suits_the_card(monkeypatch: pytest.MonkeyPatch, card: str, capability: tuple[int, int],
                                 wanted: torch.dtype) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: card)
    assert pick_dtype("auto", torch.device("cuda")) == wanted


def test_intels_cards_are_found_and_compute_in_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.xpu, "is_available", lambda: True)
    monkeypatch.setattr(torch.xpu, "device_count", lambda: 1)
    assert pick_device("auto") == torch.device("xpu") and pick_dtype("auto", pick_device("auto")) == torch.bfloat16
