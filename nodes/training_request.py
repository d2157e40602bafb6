"""The inputs that say what to train, and the request that they stand for: of the nodes that train and export."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from ..atelier.train.request.presets import OF_ONE_MODEL, PRESETS, build_request
from . import sockets

if TYPE_CHECKING:
    from ..atelier.train.request.request import TrainRequest

LENGTHS = {name: f"{preset.steps} steps" if preset.steps else f"{preset.epochs} epochs"
           for name, preset in PRESETS.items()}
"""How long each preset trains."""

NO_SAMPLES = "none"
"""A sample prompt for which no pictures are drawn."""


def training_inputs() -> list[Any]:
    """The inputs."""
    return [
        sockets.TrainingSet.Input("training_set", tooltip="Pictures and captions."),
        io.String.Input("name", default="my-lora",
                        tooltip="Name of the LoRA file, without ending. A file of another run is never "
                                "overwritten: the new one gets a number."),
        io.Combo.Input("preset", options=list(PRESETS), extra_dict={"lengths": LENGTHS},
                       tooltip="A starting point for everything that is not set here: for a subject, a style, "
                               "a quick look, or the published reference recipe."),
        io.Int.Input("length", default=0, min=0, max=1_000_000,
                     tooltip="How long to train. 0: as long as the preset says, "
                             + ", ".join(f"{length} for {name}" for name, length in LENGTHS.items()
                                         if name not in OF_ONE_MODEL) + "."),
        io.Combo.Input("unit", options=["steps", "epochs"],
                       tooltip="What length counts: optimiser steps, or passes over all pictures."),
        # No new seed after each run: that would train anew.
        io.Int.Input("seed", default=0, min=0, max=2**63 - 1, control_after_generate=False,
                     tooltip="Same model, pictures, settings and seed: same LoRA."),
        sockets.LoraConfig.Input("lora_config", optional=True,
                                 tooltip="Shape of the LoRA, where it differs from the preset's."),
        sockets.TrainingOptions.Input("options", optional=True,
                                      tooltip="How to train, where it differs from the preset."),
        io.String.Input("sample_prompt", default="", multiline=True, optional=True,
                        placeholder="what to draw meanwhile; empty: the first picture's caption",
                        tooltip="Draw a picture of each of these prompts, one a line, now and then, and with the "
                                "finished LoRA. Empty: as the options or the preset have it, else the caption of the "
                                f"first picture. {NO_SAMPLES}: no pictures."),
    ]


def training_request(training_set: Any, preset: str, length: int, unit: str, seed: int,
                     lora_config: Mapping[str, Any] | None, options: Mapping[str, Any] | None, sample_prompt: str
                     ) -> TrainRequest:
    """The request that the inputs stand for.

    Raises:
        AtelierError: a value is out of range.
    """
    from ..atelier.dataset.captions import typical_caption

    own: dict[str, Any] = {unit: length, "seed": seed}
    if sample_prompt.strip():
        own["sample_prompt"] = "" if sample_prompt.strip() == NO_SAMPLES else sample_prompt
    request = build_request(preset, lora_config or {}, options or {}, own)
    if "sample_prompt" not in own and not request.samples.prompts:
        request = request.override({"sample_prompt": typical_caption(training_set)})
    return request
