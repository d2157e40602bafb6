"""Nodes that put a LoRA to use, or bring it to another program's form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from comfy_api.latest import io

from ..atelier.files import file_name
from ..atelier.lora.names import FORMATS
from . import host, sockets, weights
from .checks import verdict
from .made import find_or_reserve

_FOLDER = "PEFT: "
"""In front of folders among the names of LoRA files."""


class ApplyLora(io.ComfyNode):
    """MODEL and CLIP with a LoRA that is in memory, such as the one just trained."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierApplyLora",
            display_name="Apply LoRA",
            category="Atelier/lora",
            description="Adds a LoRA from another node to a model and its text encoder, with no file in between.",
            search_aliases=["lora", "load lora", "lora model"],
            inputs=[
                io.Model.Input("model", tooltip="The model to change. The one that comes in stays as it is."),
                io.Clip.Input("clip", tooltip="Its text encoder. Nothing happens to it if the LoRA did not train it."),
                sockets.LoraModel.Input("lora", tooltip="A LoRA from Train LoRA, Convert LoRA or Load LoRA Model."),
                io.Float.Input("strength_model", default=1.0, min=-10.0, max=10.0, step=0.05,
                               tooltip="How strongly the model is changed: 0 not at all, 1 as trained."),
                io.Float.Input("strength_clip", default=1.0, min=-10.0, max=10.0, step=0.05,
                               tooltip="How strongly the text encoder is changed."),
            ],
            outputs=[
                io.Model.Output(display_name="MODEL", tooltip="The model with the LoRA."),
                io.Clip.Output(display_name="CLIP", tooltip="The text encoder with the LoRA."),
            ],
        )

    @classmethod
    def execute(cls, model: Any, clip: Any, lora: Any, strength_model: float, strength_clip: float) -> io.NodeOutput:
        """Add the patches to clones of both."""
        return io.NodeOutput(*weights.apply_lora(model, clip, lora, strength_model, strength_clip))


class ConvertLora(io.ComfyNode):
    """A LoRA in another program's form."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierConvertLora",
            display_name="Convert LoRA",
            category="Atelier/lora",
            description="Writes a LoRA in the form of kohya (ComfyUI, A1111, Forge), diffusers or PEFT, with the same "
                        "strength, to models/loras. Reads all of them, and files of ComfyUI's own trainer.",
            search_aliases=["lora", "kohya", "peft", "diffusers", "convert lora"],
            is_output_node=True,
            inputs=[
                io.Combo.Input("lora", options=host.model_names("loras") + [_FOLDER + n for n in host.peft_names()],
                               tooltip="A file or a PEFT folder in models/loras."),
                io.Combo.Input("form", options=list(FORMATS),
                               tooltip="kohya is one file for ComfyUI, A1111 and Forge; diffusers one file for its "
                                       "load_lora_weights; peft a folder for PEFT's from_pretrained."),
                io.String.Input("name", default="",
                                tooltip="Name of the new file, without ending. Empty: the old name and the form. An "
                                        "existing file is never overwritten: the new one gets a number."),
            ],
            outputs=[
                io.String.Output(display_name="lora name", tooltip="As core's Load LoRA lists the file."),
                sockets.LoraModel.Output(display_name="lora", tooltip="For Apply LoRA, or core's Load LoRA Model."),
                io.String.Output(display_name="report", tooltip="How many keys matched, and what was left out."),
            ],
        )

    @classmethod
    def validate_inputs(cls, lora: str | None = None) -> bool | str:
        """Say before the run that the LoRA is missing."""
        return verdict(_path, lora)

    @classmethod
    def fingerprint_inputs(cls, lora: str | None = None, **_: Any) -> str:
        """Change when the file does."""
        return host.disk_state(_path(lora)) if lora else ""

    @classmethod
    def execute(cls, lora: str, form: str, name: str) -> io.NodeOutput:
        """Convert, or find the file that the same conversion made."""
        from ..atelier.lora.convert import convert_lora
        from ..atelier.lora.file import read_lora
        from ..atelier.lora.formats import kohya_state

        source, folder = _path(lora), host.model_folder("loras")
        old = lora.removeprefix(_FOLDER)
        new = file_name(name) if name.strip() else f"{old if old != lora else Path(old).with_suffix('')}-{form}"
        ending = "" if form == "peft" else ".safetensors"
        made = find_or_reserve(folder / f"{new}{ending}", source, host.disk_state(source), form)
        report = made.report
        if report is None:
            report = convert_lora(source, made.path, form).text()
            made.remember(report)
        host.HostProgress().say(report)
        state = kohya_state(read_lora(made.path).weights)
        return io.NodeOutput(str(made.path.relative_to(folder)), state, report, ui={"text": (report,)})


def _path(name: str | None) -> Path:
    name = name or ""  # a graph saved where there was none to choose
    if name.startswith(_FOLDER):
        return host.peft_path(name.removeprefix(_FOLDER))
    return host.model_path("loras", name)


NODES: list[type[io.ComfyNode]] = [ApplyLora, ConvertLora]
