"""The identity of a run, field by field: what changes the weights changes the identity, and nothing else does."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from kit.checkpoints import write_sd1
from kit.loras import layers, random_lora
from kit.training import MemorySet, tiny_unet
from kit.training_loop import loop_in, request
from safetensors.torch import load_file

from atelier.lora.file import save_lora
from atelier.models.handle import DiffusersModel
from atelier.models.noise_schedule import NoiseSchedule
from atelier.models.open import open_model
from atelier.train.diffusers_trainable import DiffusersTrainable
from atelier.train.identity import recipe_values, run_identity
from atelier.train.request.request import FIELDS, TrainRequest

BASE = dict(rank=4, alpha=4, learning_rate=1e-2, batch_size=2, schedule="constant", validate_every=2, patience=99,
            steps=8)
DATA = MemorySet.of(12, prior=3, captions=2)

STEEP = dict(BASE, learning_rate=2.0, steps=14)
"""So that the loss does not fall at every validation."""
MANY = MemorySet.of(30)
"""So that three pictures are held out."""

WEIGHTS: dict[str, Any] = {
    "rank": 6, "alpha": 8.0, "dropout": 0.3, "targets": "cross_attention", "kind": "dora", "rslora": True,
    "learning_rate": 2e-2, "beta1": 0.5, "beta2": 0.9, "weight_decay": 0.5, "max_grad_norm": 0.001,
    "schedule": "linear", "warmup_steps": 3, "batch_size": 4, "gradient_accumulation": 2, "ema_decay": 0.9,
    "min_snr_gamma": 1.0, "noise_offset": 0.2, "prior_weight": 0.1, "caption_dropout": 0.9, "holdout": False,
    "steps": 4, "seed": 1, "optimizer": "sgd", "optimizer_args": "eps=0.1", "lora_plus_ratio": 4.0, "loss": "smooth_l1",
    "min_timestep": 500, "max_timestep": 300, "rank_dropout": 0.5, "target_pattern": r".*attn1\.to_q",
    "rank_pattern": "to_k = 2", "init_weights": "pissa", "preservation_class": "dog"}
"""Fields that change the weights after any step, and another value of each."""

CHOICE: dict[str, Any] = {"monitor": "epoch", "patience": 1, "min_delta": 9.0, "validation_timesteps": 16,
                          "validation_pictures": 2, "validate_every": 3}
"""Fields of validation: they decide which weights are handed on."""

NEITHER: dict[str, Any] = {
    "sample_prompt": "a cat", "sample_negative": "a dog", "sample_every": 3, "sample_steps": 5, "sample_cfg": 2.0,
    "sample_seeds": "1, 2", "score_model": "clip.safetensors",
    "lora_format": "diffusers", "save_dtype": "fp16", "save_every": 3, "gradient_checkpointing": "on",
    "blocks_to_swap": 3, "cuda_graphs": "on"}
"""Fields that change no weights."""

ELSEWHERE = {
    "text_learning_rate", "train_text_encoder", "caption_variants", "keep_tokens", "tag_dropout", "compile",
    "precision", "epochs", "level_distribution", "level_shift", "shift_value", "schedule_cycles", "schedule_power",
    "huber_c", "huber_schedule", "init_lora", "lokr_factor", "preservation_weight", "inpaint_masks"}
"""Fields whose effect on weights needs packages, a text encoder, encoded captions, a compiler, another processor, a
flow model, an inpainting model, a file or another field; their own tests show it."""


@dataclass(frozen=True)
class Trained:
    weights: dict[str, torch.Tensor]
    validation: list[tuple[int, float]]
    step: int


def trained(folder: Path, wanted: TrainRequest, data: MemorySet = DATA) -> Trained:
    loop = loop_in(folder, wanted, data=data)
    if wanted.device.gradient_checkpointing == "on":
        loop.trainer.denoiser.unet.enable_gradient_checkpointing()
    result = loop.run()
    return Trained(load_file(result.weights), result.state.history.validation, result.state.step)


def alike(one: Trained, other: Trained) -> bool:
    return (one.weights.keys() == other.weights.keys()
            and all(torch.equal(one.weights[key], other.weights[key]) for key in one.weights))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained(tmp_path_factory.mktemp("base"), request(BASE))


@pytest.fixture(scope="module")
def steep(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained(tmp_path_factory.mktemp("steep"), request(STEEP), MANY)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> DiffusersModel:
    return open_model(write_sd1(tmp_path_factory.mktemp("model") / "tiny.safetensors", "tiny"))


class Pictures:
    """Stands for a `TrainingSet`."""

    def __init__(self, digest: str = "pictures") -> None:
        self.digest = digest


def identity(model: DiffusersModel, wanted: TrainRequest, dtype: torch.dtype = torch.float32) -> str:
    return str(run_identity(wanted, DiffusersTrainable(model), Pictures(), dtype))  # type: ignore[arg-type]


def test_every_field_is_in_one_of_the_tables() -> None:
    tables = [set(WEIGHTS), set(CHOICE), set(NEITHER), ELSEWHERE]
    assert set.union(*tables) == set(FIELDS) and sum(map(len, tables)) == len(FIELDS)


@pytest.mark.parametrize("name", WEIGHTS)
def test_what_changes_the_weights_changes_the_identity(name: str, base: Trained, model: DiffusersModel, tmp_path: Path
                                                       ) -> None:
    changed = request(BASE, {name: WEIGHTS[name]})
    assert not alike(trained(tmp_path, changed), base)
    assert identity(model, changed) != identity(model, request(BASE))


@pytest.mark.parametrize("name", CHOICE)
def test_what_changes_the_choice_of_weights_changes_the_identity(name: str, steep: Trained, model: DiffusersModel,
                                                                 tmp_path: Path) -> None:
    changed = request(STEEP, {name: CHOICE[name]})
    other = trained(tmp_path, changed, MANY)
    assert (other.validation, other.step) != (steep.validation, steep.step) or not alike(other, steep)
    assert identity(model, changed) != identity(model, request(STEEP))


@pytest.mark.parametrize("name", NEITHER)
def test_what_changes_no_weights_changes_no_identity(name: str, base: Trained, model: DiffusersModel, tmp_path: Path
                                                     ) -> None:
    changed = request(BASE, {name: NEITHER[name]})
    other = trained(tmp_path, changed)
    assert alike(other, base) and other.validation == base.validation
    assert identity(model, changed) == identity(model, request(BASE))


@pytest.mark.parametrize(("name", "value"), [
    ("optimizer", "prodigy"), ("text_learning_rate", 1e-3), ("train_text_encoder", True), ("caption_variants", 3),
    ("keep_tokens", 0), ("epochs", 2)])
def test_other_recipes_are_other_runs(name: str, value: Any, model: DiffusersModel) -> None:
    assert identity(model, request(BASE, {name: value, "steps": 0 if name == "epochs" else 8})) != identity(
        model, request(BASE))


def test_tag_dropout_is_another_run_and_none_of_it_the_runs_from_before(model: DiffusersModel) -> None:
    many = {"caption_variants": 3}
    assert identity(model, request(BASE, {**many, "tag_dropout": 0.1})) != identity(model, request(BASE, many))
    assert recipe_values(request(BASE).captions) == {"caption_dropout": 0.0, "caption_variants": 1, "keep_tokens": 1}


@pytest.mark.parametrize(("with_it", "field"), [
    ({"schedule": "cosine_with_restarts"}, {"schedule_cycles": 2}),
    ({"schedule": "polynomial"}, {"schedule_power": 1.5}),
    ({"preservation_class": "dog"}, {"preservation_weight": 0.5}),
    ({"loss": "huber"}, {"huber_c": 0.5}), ({"loss": "huber"}, {"huber_schedule": "constant"})], ids=str)
def test_what_depends_on_another_field_counts(with_it: dict[str, Any], field: dict[str, Any], base: Trained,
                                              model: DiffusersModel, tmp_path: Path) -> None:
    one, other = request(BASE, with_it), request(BASE, {**with_it, **field})
    first = trained(tmp_path / "one", one)
    assert not alike(first, base) and not alike(trained(tmp_path / "other", other), first)
    assert identity(model, one) != identity(model, other)


def test_options_that_came_later_leave_the_runs_from_before_their_names() -> None:
    options = TrainRequest(steps=1)
    assert set(recipe_values(options.optimizer)) == {
        "optimizer", "learning_rate", "text_learning_rate", "beta1", "beta2", "weight_decay", "max_grad_norm",
        "schedule", "warmup_steps", "batch_size", "gradient_accumulation", "ema_decay"}
    assert set(recipe_values(options.loss)) == {"min_snr_gamma", "noise_offset", "prior_weight"}
    assert set(recipe_values(options.lora)) == {"rank", "alpha", "dropout", "targets", "kind", "rslora",
                                                "train_text_encoder"}
    assert set(recipe_values(options.levels)) == {"level_distribution", "level_shift", "shift_value"}


@pytest.mark.parametrize("name", ["compile", "precision"])
def test_of_the_device_only_the_arithmetic_type_counts(name: str, model: DiffusersModel) -> None:
    changed = request(BASE, {name: {"compile": "on", "precision": "fp32"}[name]})
    assert identity(model, changed) == identity(model, request(BASE))
    assert identity(model, request(BASE), torch.bfloat16) != identity(model, request(BASE))


def test_the_length_is_kept_apart(model: DiffusersModel) -> None:
    one, other = (run_identity(request(BASE, steps=steps), DiffusersTrainable(model), Pictures(), torch.float32)  # type: ignore[arg-type]
                  for steps in (8, 16))
    assert one.lineage == other.lineage and str(one) != str(other)


def _schedule(model: DiffusersModel, **values: Any) -> NoiseSchedule:
    import json

    return NoiseSchedule(json.dumps({**model.noise_schedule.as_config(), **values}, sort_keys=True))


@pytest.mark.parametrize("change", ["fingerprint", "betas", "zero snr", "prediction", "scale", "shift"])
def test_what_training_takes_from_the_model_counts(model: DiffusersModel, change: str) -> None:
    other = {
        "fingerprint": lambda: replace(model, fingerprint="another"),
        "betas": lambda: replace(model, noise_schedule=_schedule(model, beta_end=0.013)),
        "zero snr": lambda: replace(model, noise_schedule=_schedule(model, rescale_betas_zero_snr=True)),
        "prediction": lambda: replace(model, noise_schedule=_schedule(model, prediction_type="v_prediction")),
        "scale": lambda: replace(model, latent_scale=0.2), "shift": lambda: replace(model, latent_shift=0.1),
    }[change]()
    assert identity(other, request(BASE)) != identity(model, request(BASE))


def test_how_a_model_is_sampled_or_called_does_not_count(model: DiffusersModel, tmp_path: Path) -> None:
    other = replace(model, path=tmp_path / "another name.safetensors",
                    noise_schedule=_schedule(model, timestep_spacing="trailing"))
    assert identity(other, request(BASE)) == identity(model, request(BASE))


def test_other_pictures_are_another_run(model: DiffusersModel) -> None:
    one, other = (run_identity(request(BASE), DiffusersTrainable(model), Pictures(digest), torch.float32)  # type: ignore[arg-type]
                  for digest in ("a", "b"))
    assert str(one) != str(other)


def test_the_request_has_no_other_fields() -> None:
    assert {field.name for field in fields(TrainRequest)} == {*(set(FIELDS.values()) - {""}), "epochs", "steps", "seed"}


@pytest.mark.parametrize("levels", [{"level_distribution": "uniform"}, {"level_shift": "value"},
                                    {"level_shift": "value", "shift_value": 3.0}], ids=str)
def test_other_noise_levels_are_another_run(model: DiffusersModel, levels: dict[str, Any]) -> None:
    wanted = TrainRequest(steps=8)
    assert identity(model, wanted) != identity(model, wanted.override(levels))


@pytest.mark.parametrize("monitor", ["fidelity", "likeness"])
def test_samples_count_where_they_decide_which_weights_are_the_best(model: DiffusersModel, monitor: str) -> None:
    def name(digest: str = "digest", **values: Any) -> str:
        wanted = request(BASE, dict(score_model="clip.safetensors", sample_prompt="a cat"), values)
        return str(run_identity(wanted, DiffusersTrainable(model), Pictures(), torch.float32,  # type: ignore[arg-type]
                                score_model=digest))

    one = name(monitor=monitor)
    others = [name("another digest", monitor=monitor), *(name(monitor=monitor, **{key: NEITHER[key]}) for key in (
        "sample_negative", "sample_steps", "sample_cfg", "sample_seeds")), name(monitor=monitor, sample_prompt="a dog")]
    assert len({one, *others}) == 1 + len(others)
    assert one == name(monitor=monitor, sample_every=3, score_model="elsewhere/clip.safetensors")
    assert name() == name("another digest", sample_prompt="a dog"), "a loss decides"


def test_what_training_starts_from_is_another_run_by_its_content(model: DiffusersModel, tmp_path: Path) -> None:
    of = layers("unet", tiny_unet())
    paths = [save_lora(tmp_path / f"{name}.safetensors", random_lora(of, seed=seed))
             for name, seed in (("one", 0), ("copy", 0), ("other", 1))]
    none, one, copy, other = (identity(model, request(BASE, init_lora=str(path or ""))) for path in (None, *paths))
    assert one == copy and len({none, one, other}) == 3
