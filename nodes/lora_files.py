"""What the nodes that read and write LoRA files share: their choice, and a result that is written once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from comfy_api.latest import io

from ..atelier.files import file_name
from ..atelier.lora.dtypes import DTYPES
from . import sockets
from .host import folders
from .result_cache import find_or_reserve

FOLDER_PREFIX = "PEFT: "
"""Marks the PEFT folders among the names of LoRA files."""


def lora_input(name: str, tooltip: str = "A file or a PEFT folder in models/loras.", **more: Any) -> io.Input:
    """A list of the LoRA files and PEFT folders."""
    return io.Combo.Input(name, options=[*folders.model_names("loras"),
                                         *(FOLDER_PREFIX + name for name in folders.peft_names())],
                          tooltip=tooltip, **more)


def lora_path(name: str | None) -> Path:
    """Path of a name on that list.

    Raises:
        AtelierError: it is not there.
    """
    name = name or ""  # None in a graph saved on a machine without LoRAs
    if name.startswith(FOLDER_PREFIX):
        return folders.peft_path(name.removeprefix(FOLDER_PREFIX))
    return folders.model_path("loras", name)


def written_inputs(default: str) -> list[io.Input]:
    """Type and name of the written file."""
    return [
        io.Combo.Input("save_dtype", options=list(DTYPES), default="fp16",
                       tooltip="Type of the written numbers; fp16 and bf16 make half as large a file as fp32."),
        io.String.Input("name", default=default,
                        tooltip="Name of the file, without ending. An existing file is never overwritten: the new one "
                                "gets a number."),
    ]


def lora_outputs(report: str) -> list[io.Output]:
    """Name, weights and report."""
    return [
        io.String.Output(display_name="lora name", tooltip="As core's Load LoRA lists the file."),
        sockets.LoraModel.Output(display_name="lora", tooltip="For Apply LoRA, or core's Load LoRA Model."),
        io.String.Output(display_name="report", tooltip=report),
    ]


def written_once(name: str, write: Callable[[Path], str], *request: object) -> io.NodeOutput:
    """The node's output: the file of `request`, written if no earlier run has.

    Args:
        name: Of the file, as a person typed it.
        write: Writes it, and returns a report.
        request: Everything that the result depends on.
    """
    from ..atelier.lora.file import read_lora
    from ..atelier.lora.formats import kohya_state

    folder = folders.model_folder("loras")
    result = find_or_reserve(folder / f"{file_name(name)}.safetensors", *request)
    report = result.report
    if report is None:
        report = write(result.path)
        result.remember(report)
    state = kohya_state(read_lora(result.path).weights)
    return io.NodeOutput(str(result.path.relative_to(folder)), state, report, ui={"text": (report,)})
