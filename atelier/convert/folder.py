"""Write a model as a diffusers folder."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..checkpoint.header import TORCH_NAMES
from ..checkpoint.pickled import WEIGHT_ENDINGS
from ..checkpoint.source import Source
from ..errors import AtelierError
from ..files import atomic_folder, check_apart, write_json
from ..models.families import Family
from ..models.layout import Component, ModelLayout, read_layout
from ..models.noise_schedule import check_schedule, scheduler_config
from ..models.prediction import Prediction, read_kind, read_prediction
from ..models.tokenizer import write_tokenizer
from ..progress import Progress
from .options import FOLDER_PRECISIONS, PRECISIONS, ConvertOptions
from .report import ConversionReport
from .streaming import Stream, check_space, written_dtype, written_size

WEIGHTS = {"unet": "diffusion_pytorch_model.safetensors", "vae": "diffusion_pytorch_model.safetensors",
           "text_encoder": "model.safetensors", "text_encoder_2": "model.safetensors"}
"""File names that diffusers and the host look for."""

LOW_RES_SCHEDULER = {"_class_name": "DDPMScheduler", "num_train_timesteps": 1000, "beta_start": 0.0001,
                     "beta_end": 0.02, "beta_schedule": "scaled_linear", "prediction_type": "epsilon",
                     "clip_sample": True}
"""The schedule of the noise that the x4 upscaler adds to its small input picture."""


def to_folder(source: Path, destination: Path, options: ConvertOptions | None = None,
              progress: Progress | None = None) -> ConversionReport:
    """Convert a checkpoint (or another diffusers folder) to a diffusers folder, with no network and no tensor in
    memory.

    The folder holds weights, configurations derived from their shapes, tokenizers, a scheduler and `model_index.json`.
    A folder that stood at `destination` is replaced, if it is a model, once the new one is whole.

    Raises:
        AtelierError: the source is no supported model, the disk is full, or `destination` holds something else.
    """
    options, progress = options or ConvertOptions(), progress or Progress()
    start = time.monotonic()
    if options.precision not in FOLDER_PRECISIONS:
        raise AtelierError(f"A diffusers folder cannot hold {options.precision}: diffusers does not read its scales.",
                           f"Choose one of: {', '.join(FOLDER_PRECISIONS)}; or a name that ends in .safetensors.")
    layout = read_layout(source)
    _check_destination(layout.source, destination)
    check_schedule(layout)
    prediction = read_prediction(layout, options.prediction_type)
    kind = read_kind(layout, prediction)
    size = sum(written_size(part.tensors, options.precision) for part in layout.components.values())
    check_space(destination, size)
    stream, written = Stream(progress, size), 0
    with atomic_folder(destination) as folder:
        for name, component in layout.components.items():
            (folder / name).mkdir()
            write_json(folder / name / "config.json", _config(component, options.precision))
            written += stream.write(folder / name / WEIGHTS[name], component.tensors, options.precision, {})
        _write_rest(folder, layout, prediction)
    dtype = written_dtype(next(iter(layout.unet.tensors.values())).dtype, options.precision)
    return ConversionReport(
        source=source, destination=destination, family=layout.family.key, name=kind.name,
        prediction_type=prediction.type, prediction_because=prediction.because, dtype=TORCH_NAMES[dtype],
        parameters=layout.parameters, tensors=sum(len(part.tensors) for part in layout.components.values()),
        dropped=layout.unused, bytes=written, seconds=time.monotonic() - start, advice=kind.advice,
        notes=tuple(_notes(layout)))


def _config(component: Component, precision: str) -> dict[str, Any]:
    """The component's configuration. transformers loads weights in the type that it names, which must be theirs."""
    config, dtype = dict(component.config), PRECISIONS[precision]
    named = [key for key in ("dtype", "torch_dtype") if key in config]
    return config | dict.fromkeys(named, TORCH_NAMES[dtype]) if dtype else config


def model_index(family: Family) -> dict[str, Any]:
    """The content of `model_index.json`: which class runs the model, and which library each component is from."""
    def library(folder: str) -> list[str | None]:
        spec = next((spec for spec in family.text_encoders if spec.folder == folder), None)
        if spec is None:
            return [None, None]
        return ["transformers", "CLIPTextModelWithProjection" if spec.pooled else "CLIPTextModel"]

    def tokenizer(folder: str) -> list[str | None]:
        return ["transformers", "CLIPTokenizer"] if library(folder)[0] else [None, None]

    index: dict[str, Any] = {
        "_class_name": family.pipeline, "_diffusers_version": "0.30.0",
        "scheduler": ["diffusers", "EulerDiscreteScheduler"],
        "text_encoder": library("text_encoder"), "tokenizer": tokenizer("text_encoder"),
        "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
    }
    if family.key.startswith("sdxl"):
        index |= {"text_encoder_2": library("text_encoder_2"), "tokenizer_2": tokenizer("text_encoder_2"),
                  "force_zeros_for_empty_prompt": family.key != "sdxl-refiner",
                  "requires_aesthetics_score": family.key == "sdxl-refiner"}
        if family.key == "sdxl":
            del index["requires_aesthetics_score"]
    elif family.key == "x4-upscaler":
        index |= {"low_res_scheduler": ["diffusers", "DDPMScheduler"], "max_noise_level": 350}
    else:
        index |= {"safety_checker": [None, None], "feature_extractor": [None, None], "requires_safety_checker": False}
    return index


def _write_rest(folder: Path, layout: ModelLayout, prediction: Prediction) -> None:
    family = layout.family
    scheduler = scheduler_config(layout, prediction)
    write_json(folder / "scheduler" / "scheduler_config.json", scheduler)
    if family.key == "x4-upscaler":
        write_json(folder / "low_res_scheduler" / "scheduler_config.json", LOW_RES_SCHEDULER)
    for spec in family.text_encoders:
        if spec.folder in layout.components:
            write_tokenizer(folder / spec.folder.replace("text_encoder", "tokenizer"), spec.pad_token)
    if not layout.missing:
        write_json(folder / "model_index.json", model_index(family) | _scheduler_entry(scheduler))


def _scheduler_entry(scheduler: Mapping[str, Any]) -> dict[str, Any]:
    return {"scheduler": ["diffusers", scheduler.get("_class_name", "EulerDiscreteScheduler")]}


def _notes(layout: ModelLayout) -> list[str]:
    if not layout.missing:
        return []
    return [f"The source has no {layout.missing_words}: the folder holds single components and no whole pipeline"]


def _check_destination(source: Source, destination: Path) -> None:
    """Refuse a destination that overlaps with the source or holds something other than a model."""
    if destination.suffix.lower() in WEIGHT_ENDINGS:
        raise AtelierError(f"{destination} has the ending of a file, and a diffusers model is a folder.",
                           "For a single file choose a name that ends in .safetensors, for a folder one without it.")
    check_apart(destination, (source.path, *source.files))
    if destination.is_dir() and any(destination.iterdir()) and not (destination / "unet").is_dir():
        raise AtelierError(f"{destination} exists and is not a diffusers folder; it was left alone.",
                           "Choose another destination.")
    if destination.exists() and not destination.is_dir():
        raise AtelierError(f"{destination} is a file.", "Choose a folder as the destination.")
