"""Save Titled: save pictures under their title, with sidecars."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io, ui

from ..atelier.errors import AtelierError
from ..atelier.files import file_name
from . import sockets
from .batching import one_each, single
from .host import folders, graph
from .host.allowed import check_written
from .host.images import from_image_tensor
from .host.progress import HostProgress

if TYPE_CHECKING:
    from ..atelier.score.result import Scores


class SaveTitled(io.ComfyNode):
    """Saves pictures under their title, with sidecars."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierSaveTitled",
            display_name="Save Titled",
            category="Atelier/grid",
            description="Saves pictures under their title, with prompts, seed and score beside each: a .txt to read "
                        "and a .json for programs. Never overwrites.",
            search_aliases=["save image", "save with prompt", "sidecar", "metadata"],
            is_input_list=True,
            is_output_node=True,
            inputs=[
                io.Image.Input("images", tooltip="Pictures of any sizes."),
                io.String.Input("title", default="untitled",
                                tooltip="What to call them: one title for all, or one for each. Any text will do."),
                io.String.Input("folder", default="atelier", tooltip="Folder below ComfyUI's output; made if need be."),
                io.String.Input("prompt", default="", multiline=True, tooltip="One for all, or one for each."),
                io.String.Input("negative", default="", multiline=True, tooltip="One for all, or one for each."),
                io.String.Input("model", default="", advanced=True, tooltip="Name of the model that made them."),
                io.Int.Input("seeds", optional=True, force_input=True, tooltip="One for all, or one for each."),
                sockets.Scores.Input("scores", optional=True, tooltip="From CLIP Score, of these pictures."),
                io.String.Input("manifest", optional=True, force_input=True,
                                tooltip="Of a grid, from Block Grid: kept in the .json file."),
            ],
            outputs=[io.String.Output(display_name="files", is_output_list=True,
                                      tooltip="Full paths of the saved pictures.")],
        )

    @classmethod
    def execute(cls, images: list[Any], title: list[str], folder: list[str], prompt: list[str], negative: list[str],
                model: list[str], seeds: list[int] | None = None, scores: list[Scores] | None = None,
                manifest: list[str] | None = None) -> io.NodeOutput:
        """Write each picture and its sidecars."""
        from ..atelier.grid.saving import Details, save_titled

        subfolder = file_name(single(folder)) if single(folder).strip() else ""
        pictures = [picture for batch in images for picture in from_image_tensor(batch)]
        all_scores = single(scores) if scores else None
        if all_scores is not None and len(all_scores.items) != len(pictures):
            raise AtelierError(f"There are {len(pictures)} pictures and {len(all_scores.items)} scores.",
                               "Connect the very pictures that were scored.")
        details = [
            Details(title=name, prompt=text, negative=without, seed=seed, model=single(model),
                    score=all_scores.items[index].value if all_scores else None,
                    scored_by=f"{all_scores.model}, {all_scores.definition.value}" if all_scores else "")
            for index, (name, text, without, seed) in enumerate(zip(
                one_each(title, images, "titles"), one_each(prompt, images, "prompts"),
                one_each(negative, images, "negatives"), one_each(seeds or [None], images, "seeds"), strict=True))]
        extra = {"grid": json.loads(single(manifest))} if manifest else None
        target = check_written(folders.output_folder() / subfolder)
        files: list[Path] = []
        progress = HostProgress()
        for picture, detail in zip(pictures, details, strict=True):
            progress.check()
            saved = save_titled(picture, target, detail, metadata=graph.metadata(cls),
                                extra=extra)
            files.append(saved.picture)
        shown = ui.SavedImages([ui.SavedResult(file.name, subfolder, io.FolderType.output) for file in files])
        return io.NodeOutput([str(file) for file in files], ui=shown)
