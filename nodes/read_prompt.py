"""Read Prompt: prompt and settings out of a picture's metadata."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from . import sockets
from .host import folders, graph

if TYPE_CHECKING:
    from ..atelier.pictures.metadata.settings import Lora, PictureMetadata

_DEFAULTS: dict[str, Any] = {"sampler": "euler", "scheduler": "normal", "steps": 20, "cfg": 7.0, "seed": 0}
"""Values for settings that a picture does not state."""


class ReadPrompt(io.ComfyNode):
    """Reads prompt and settings of a picture, to make another one with them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierReadPrompt",
            display_name="Read Prompt",
            category="Atelier/prompts",
            description="Reads prompt and settings out of a picture made by AUTOMATIC1111, Forge, InvokeAI, ComfyUI, "
                        "SwarmUI, Fooocus, NovelAI or CivitAI's generator: PNG, JPEG or WebP.",
            search_aliases=["metadata", "png info", "exif", "a1111", "civitai", "invokeai", "novelai", "parameters"],
            is_output_node=True,
            inputs=[io.Combo.Input("image", options=folders.input_pictures(), upload=io.UploadType.image,
                                   image_folder=io.FolderType.input,
                                   tooltip="A picture in ComfyUI's input folder, as the program saved it.")],
            outputs=[
                io.String.Output(display_name="positive", tooltip="The prompt, without <lora:…>."),
                io.String.Output(display_name="negative", tooltip="The negative prompt; may be empty."),
                sockets.Choice.Output(display_name="sampler", tooltip="By ComfyUI's name, for a sampler_name input."),
                sockets.Choice.Output(display_name="scheduler", tooltip="By ComfyUI's name, for a scheduler input."),
                io.Int.Output(display_name="steps", tooltip="Sampling steps."),
                io.Float.Output(display_name="cfg", tooltip="Guidance scale."),
                io.Int.Output(display_name="seed", tooltip="Noise seed. Other programs make other noise of it."),
                io.Int.Output(display_name="width", tooltip="Width in pixels."),
                io.Int.Output(display_name="height", tooltip="Height in pixels."),
                sockets.Choice.Output(display_name="checkpoint",
                                      tooltip="The model, if this machine has a checkpoint of that name, for a "
                                              "ckpt_name input. Else what follows is left out."),
                io.String.Output(display_name="report", tooltip="All that was found, in words."),
                sockets.Choice.Output(display_name="lora",
                                      tooltip="The first LoRA that this machine has, for a lora_name input. Else what "
                                              "follows is left out."),
                io.Float.Output(display_name="lora strength", tooltip="Strength of that LoRA; 0 without one."),
            ],
        )

    @classmethod
    def validate_inputs(cls, image: str) -> bool | str:
        """Accept pictures that were added after the list of options was made."""
        return folders.has_input_file(image) or f"There is no picture {image!r} in the input folder."

    @classmethod
    def fingerprint_inputs(cls, image: str | None = None, **_: Any) -> str:
        """Change when the file does."""
        return folders.disk_state(folders.input_file(image)) if image and folders.has_input_file(image) else ""

    @classmethod
    def execute(cls, image: str) -> io.NodeOutput:
        """Read the metadata of the file."""
        from ..atelier.pictures.metadata.read import pixel_size, read_prompt
        from ..atelier.pictures.metadata.settings import best_match

        path = folders.input_file(image)
        metadata = read_prompt(path)
        own_width, own_height = pixel_size(path)
        checkpoint = best_match(metadata.model, folders.model_names("checkpoints")) if metadata.model else None
        values = {name: _usable(name, getattr(metadata, name)) for name in _DEFAULTS}
        lora_files = folders.model_names("loras")
        loras = [(lora, best_match(lora.name, lora_files)) for lora in metadata.loras]
        lora_file, strength = next(((file, lora.strength) for lora, file in loras if file), (None, 0.0))
        report = _report(metadata, values, checkpoint, loras)
        return io.NodeOutput(metadata.positive, metadata.negative, *values.values(), metadata.width or own_width,
                             metadata.height or own_height, checkpoint or graph.blocked_output(), report,
                             lora_file or graph.blocked_output(), strength, ui={"text": (report,)})


def _usable(name: str, value: Any) -> Any:
    """The value if the host supports it, else the default."""
    choices = {"sampler": graph.sampler_names(), "scheduler": graph.scheduler_names()}.get(name)
    usable = value is not None and (choices is None or value in choices)
    return value if usable else _DEFAULTS[name]


def _report(metadata: PictureMetadata, values: dict[str, Any], checkpoint: str | None,
            loras: list[tuple[Lora, str | None]]) -> str:
    lines = [f"Made with {metadata.program}.", "", metadata.positive, "", f"Negative: {metadata.negative or '–'}", ""]
    for name, value in values.items():
        stated = getattr(metadata, name)
        why = " (not said)" if stated in (None, "") else f" (instead of {stated}, unknown here)"
        lines.append(f"{name}: {value}{why if stated != value else ''}")
    if metadata.width and metadata.height:
        lines.append(f"size: {metadata.width} × {metadata.height}")
    if metadata.model:
        availability = f"here as {checkpoint}" if checkpoint else "no checkpoint of that name here"
        model_hash = f" [{metadata.model_hash}]" if metadata.model_hash else ""
        lines.append(f"model: {metadata.model}{model_hash}, {availability}")
    for lora, file in loras:
        lines.append(f"LoRA: {lora.name} at {lora.strength:g}, {f'here as {file}' if file else 'not on this machine'}")
    lines += [f"not read: {name}: {why}." for name, why in metadata.left_out.items()]
    return "\n".join(lines)
