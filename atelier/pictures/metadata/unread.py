"""Why no prompt was found in a picture, and what its owner can do: programs that are known but not read."""

from __future__ import annotations

from collections.abc import Mapping

from .settings import parse_object

_EASY_DIFFUSION = ("use_stable_diffusion_model", "Stable Diffusion model")
_COPY = "Copy its prompt by hand from that program."


def why_unread(texts: Mapping[str, str]) -> tuple[str, str]:
    """What the texts of a picture without a readable prompt are, to follow its name, and what to do.

    Args:
        texts: By keyword, as found in the file.
    """
    if any("Draw Things" in text for key, text in texts.items() if "xmp" in key.lower()):
        return "was made with Draw Things, whose metadata is not read", _COPY
    if any(key in texts or f'"{key}"' in texts.get("UserComment", "") for key in _EASY_DIFFUSION):
        return "was made with Easy Diffusion, whose metadata is not read", _COPY
    graph = parse_object(texts.get("prompt", ""))
    if graph and any(isinstance(node, dict) and "class_type" in node for node in graph.values()):
        return ("holds a ComfyUI graph without a sampler whose inputs are known",
                "Drop the picture into ComfyUI and copy the prompt from the workflow.")
    if parse_object(texts.get("workflow", "")):
        return ("holds a workflow of ComfyUI's editor, but not the graph that ran, from which prompts are read",
                "Drop the picture into ComfyUI and copy the prompt, or run the workflow and use the new picture.")
    if texts:
        return ("holds metadata, but no prompt that can be read",
                "Copy its prompt by hand from the program that made it, or use a picture as that program saved it: web "
                "sites, editors and messengers change what a picture says of its making.")
    return ("holds no metadata",
            "Use the original file: web sites, editors and messengers remove what a picture says of its making.")
