"""Convert LoRA: a LoRA file or PEFT folder to another format."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from comfy_api.latest import io

from ..atelier.files import file_name
from ..atelier.lora.names import FORMATS, of_other_network
from .host import folders
from .host.progress import HostProgress
from .lora_files import FOLDER_PREFIX, lora_input, lora_outputs, lora_path
from .result_cache import find_or_reserve
from .validation import check


class ConvertLora(io.ComfyNode):
    """Converts a LoRA to another program's format."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierConvertLora",
            display_name="Convert LoRA",
            category="Atelier/lora",
            description="Writes a LoRA in the form of kohya (ComfyUI, A1111, Forge), diffusers or PEFT, with the same "
                        "strength, to models/loras. Reads all of them, files of ComfyUI's own trainer, and LyCORIS' "
                        "kinds (LoHa, LoKr and others).",
            search_aliases=["lora", "kohya", "peft", "diffusers", "convert lora"],
            is_output_node=True,
            inputs=[
                lora_input("lora"),
                io.Combo.Input("form", options=list(FORMATS),
                               tooltip="kohya is one file for ComfyUI, A1111 and Forge; diffusers one file for its "
                                       "load_lora_weights; peft a folder for PEFT's from_pretrained."),
                io.String.Input("name", default="",
                                tooltip="Name of the new file, without ending. Empty: the old name and the form. An "
                                        "existing file is never overwritten: the new one gets a number."),
            ],
            outputs=lora_outputs("How many keys matched, and what was left out."),
        )

    @classmethod
    def validate_inputs(cls, lora: str | None = None) -> bool | str:
        """Report before the run that the LoRA is missing."""
        return check(lora_path, lora)

    @classmethod
    def fingerprint_inputs(cls, lora: str | None = None, **_: Any) -> str:
        """Change when the file does."""
        return folders.disk_state(lora_path(lora)) if lora else ""

    @classmethod
    def execute(cls, lora: str, form: str, name: str) -> io.NodeOutput:
        """Convert, or find the file written by an earlier conversion with the same options."""
        from ..atelier.lora.convert import convert_lora
        from ..atelier.lora.file import read_lora
        from ..atelier.lora.formats import kohya_state

        format = form  # the widget's id is part of saved workflows
        source, folder = lora_path(lora), folders.model_folder("loras")
        # A graph saved on another system may have the other separator.
        lora = lora.replace("\\", "/")
        old = lora.removeprefix(FOLDER_PREFIX)
        stem = old if old != lora else str(PurePosixPath(old).with_suffix(""))
        new = file_name(name) if name.strip() else f"{stem}-{format}"
        ending = "" if format == "peft" else ".safetensors"
        result = find_or_reserve(folder / f"{new}{ending}", source, folders.disk_state(source), format)
        report = result.report
        if report is None:
            report = convert_lora(source, result.path, format, progress=HostProgress()).text()
            result.remember(report)
        HostProgress().say(report)
        found = read_lora(source)
        if not any(map(of_other_network, found.weights)):  # diffusers' names of others are for diffusers alone
            found = read_lora(result.path)
        state = kohya_state(found.weights)
        return io.NodeOutput(str(result.path.relative_to(folder)), state, report, ui={"text": (report,)})
