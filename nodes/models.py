"""Nodes that open models and load them for sampling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from comfy_api.latest import io

from . import host, sockets, weights
from .checks import verdict

_FOLDER = "diffusers: "
"""In front of folders among the names of checkpoints."""


class OpenModel(io.ComfyNode):
    """A handle on a model, as it lies on the disk."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        names = host.model_names("checkpoints") + [_FOLDER + name for name in host.diffusers_names()]
        return io.Schema(
            node_id="AtelierOpenModel",
            display_name="Open Model",
            category="Atelier/model",
            description="A checkpoint or a diffusers folder for training, as it lies on the disk. No copy is made.",
            search_aliases=["checkpoint", "diffusers", "load model"],
            inputs=[
                io.Combo.Input("model", options=names,
                               tooltip="A file in models/checkpoints or a folder in models/diffusers."),
                io.Combo.Input("prediction_type", options=["auto", "epsilon", "v_prediction"], default="auto",
                               tooltip="What the model predicts. Only few files say so; auto takes what is usual for "
                                       "the family.", advanced=True),
            ],
            outputs=[sockets.DiffusersModel.Output(display_name="model",
                                                   tooltip="For Train LoRA, Load for Sampling or Export Checkpoint.")],
        )

    @classmethod
    def validate_inputs(cls, model: str | None = None) -> bool | str:
        """Say before the run that the model is missing."""
        return verdict(_path, model)

    @classmethod
    def fingerprint_inputs(cls, model: str | None = None, **_: Any) -> str:
        """Change when the file does."""
        return host.disk_state(_path(model)) if model else ""

    @classmethod
    def execute(cls, model: str, prediction_type: str) -> io.NodeOutput:
        """Read the header and the fingerprint."""
        from ..atelier.models.open import open_model

        progress = host.HostProgress()
        return io.NodeOutput(open_model(_path(model), prediction_type=prediction_type, progress=progress))


class LoadForSampling(io.ComfyNode):
    """MODEL, CLIP and VAE of a handle."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierLoadForSampling",
            display_name="Load for Sampling",
            category="Atelier/model",
            description="Loads a model for core's samplers, whether it is a checkpoint or a diffusers folder.",
            search_aliases=["checkpoint loader", "diffusers loader"],
            inputs=[sockets.DiffusersModel.Input("model", tooltip="From Convert Checkpoint or Open Model.")],
            outputs=[
                io.Model.Output(display_name="MODEL", tooltip="What denoises."),
                io.Clip.Output(display_name="CLIP", tooltip="What reads prompts."),
                io.Vae.Output(display_name="VAE", tooltip="What turns latents into pictures and back."),
            ],
        )

    @classmethod
    def execute(cls, model: Any) -> io.NodeOutput:
        """Let the host's own loader take the weights."""
        return io.NodeOutput(*weights.load_model(model))


def _path(name: str | None) -> Path:
    name = name or ""  # a graph saved where there was none to choose
    if name.startswith(_FOLDER):
        return host.diffusers_path(name.removeprefix(_FOLDER))
    return host.model_path("checkpoints", name)


NODES: list[type[io.ComfyNode]] = [OpenModel, LoadForSampling]
