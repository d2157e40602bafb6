"""The node that reads prompts out of pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from . import host

if TYPE_CHECKING:
    from ..atelier.pictures.metadata.settings import Lora, PictureMetadata

DEFAULTS: dict[str, Any] = {"sampler": "euler", "scheduler": "normal", "steps": 20, "cfg": 7.0, "seed": 0}
"""What is taken where a picture does not say."""


class ReadPrompt(io.ComfyNode):
    """How a picture was made, for making another."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierReadPrompt",
            display_name="Read Prompt",
            category="Atelier/prompts",
            description="Reads prompt and settings out of a picture made by AUTOMATIC1111, Forge, InvokeAI, ComfyUI or "
                        "CivitAI's generator: PNG, JPEG or WebP.",
            search_aliases=["metadata", "png info", "exif", "a1111", "civitai", "invokeai", "parameters"],
            is_output_node=True,
            inputs=[io.Combo.Input("image", options=host.input_pictures(), upload=io.UploadType.image,
                                   image_folder=io.FolderType.input,
                                   tooltip="A picture in ComfyUI's input folder, as the program saved it.")],
            outputs=[
                io.String.Output(display_name="positive", tooltip="The prompt, without <lora:…>."),
                io.String.Output(display_name="negative", tooltip="The negative prompt; may be empty."),
                # Any: the host's combos take nothing else from a link.
                io.AnyType.Output(display_name="sampler", tooltip="By ComfyUI's name, for a sampler_name input."),
                io.AnyType.Output(display_name="scheduler", tooltip="By ComfyUI's name, for a scheduler input."),
                io.Int.Output(display_name="steps", tooltip="Sampling steps."),
                io.Float.Output(display_name="cfg", tooltip="Guidance scale."),
                io.Int.Output(display_name="seed", tooltip="Noise seed. Other programs make other noise of it."),
                io.Int.Output(display_name="width", tooltip="Width in pixels."),
                io.Int.Output(display_name="height", tooltip="Height in pixels."),
                io.AnyType.Output(display_name="checkpoint", tooltip="The model, if this machine has a checkpoint of "
                                                                     "that name, for a ckpt_name input. Else what "
                                                                     "follows is left out."),
                io.String.Output(display_name="report", tooltip="All that was found, in words."),
                io.AnyType.Output(display_name="lora", tooltip="The first LoRA that this machine has, for a lora_name "
                                                               "input. Else what follows is left out."),
                io.Float.Output(display_name="lora strength", tooltip="Strength of that LoRA; 0 without one."),
            ],
        )

    @classmethod
    def validate_inputs(cls, image: str) -> bool | str:
        """Let pictures through that came after the list was made."""
        return host.has_input_file(image) or f"There is no picture {image!r} in the input folder."

    @classmethod
    def fingerprint_inputs(cls, image: str | None = None, **_: Any) -> str:
        """Change when the file does."""
        return host.disk_state(host.input_file(image)) if image and host.has_input_file(image) else ""

    @classmethod
    def execute(cls, image: str) -> io.NodeOutput:
        """Read the file's metadata; its pixels do not matter."""
        from ..atelier.pictures.metadata.read import pixel_size, read_prompt
        from ..atelier.pictures.metadata.settings import best_match

        path = host.input_file(image)
        found = read_prompt(path)
        own_width, own_height = pixel_size(path)
        checkpoint = best_match(found.model, host.model_names("checkpoints")) if found.model else None
        values = {name: _known(name, getattr(found, name)) for name in DEFAULTS}
        known = host.model_names("loras")
        loras = [(lora, best_match(lora.name, known)) for lora in found.loras]
        here, strength = next(((file, lora.strength) for lora, file in loras if file), (None, 0.0))
        report = _report(found, values, checkpoint, loras)
        return io.NodeOutput(found.positive, found.negative, *values.values(), found.width or own_width,
                             found.height or own_height, checkpoint or host.nothing(), report,
                             here or host.nothing(), strength, ui={"text": (report,)})


def _known(name: str, value: Any) -> Any:
    """The value if the host can use it, else the default."""
    choices = {"sampler": host.sampler_names(), "scheduler": host.scheduler_names()}.get(name)
    good = value is not None and (choices is None or value in choices)
    return value if good else DEFAULTS[name]


def _report(found: PictureMetadata, values: dict[str, Any], checkpoint: str | None,
            loras: list[tuple[Lora, str | None]]) -> str:
    lines = [f"Made with {found.program}.", "", found.positive, "", f"Negative: {found.negative or '–'}", ""]
    for name, value in values.items():
        said = getattr(found, name)
        why = "" if said == value else " (not said)" if said in (None, "") else f" (instead of {said}, unknown here)"
        lines.append(f"{name}: {value}{why}")
    if found.width and found.height:
        lines.append(f"size: {found.width} × {found.height}")
    if found.model:
        has = f"here as {checkpoint}" if checkpoint else "no checkpoint of that name here"
        lines.append(f"model: {found.model}{f' [{found.model_hash}]' if found.model_hash else ''}, {has}")
    for lora, file in loras:
        lines.append(f"LoRA: {lora.name} at {lora.strength:g}, {f'here as {file}' if file else 'not on this machine'}")
    return "\n".join(lines)


NODES: list[type[io.ComfyNode]] = [ReadPrompt]
