"""Save Titled: save pictures under their title, with sidecars."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io, ui

from ..atelier.errors import AtelierError
from ..atelier.files import folder_name
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
                                tooltip="What to call them: one title for all, or one for each. Any text will do, with "
                                        "%date:yyyy-MM-dd% and the like as in Save Image."),
                io.String.Input("folder", default="atelier",
                                tooltip="Folder below ComfyUI's output; made if need be. %date:yyyy-MM-dd%, %width% "
                                        "and the like are filled in as in Save Image."),
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
        from ..atelier.grid.manifest import parse_manifest
        from ..atelier.grid.name_patterns import fill_pattern
        from ..atelier.grid.saving import Details, parameters, save_titled
        from ..atelier.pictures.metadata.comfy_graph import parse_graph

        pictures = [picture for batch in images for picture in from_image_tensor(batch)]
        now, nodes = time.localtime(), graph.nodes(cls)

        def named(text: str, size: tuple[int, int]) -> str:
            return fill_pattern(text, size, now, nodes)

        all_scores = single(scores) if scores else None
        if all_scores is not None and len(all_scores.items) != len(pictures):
            raise AtelierError(f"There are {len(pictures)} pictures and {len(all_scores.items)} scores.",
                               "Connect the very pictures that were scored.")
        details = [
            Details(title=named(name, pictures[index].size), prompt=text, negative=without, seed=seed,
                    model=single(model),
                    score=all_scores.items[index].value if all_scores else None,
                    scored_by=f"{all_scores.model}, {all_scores.definition.value}" if all_scores else "")
            for index, (name, text, without, seed) in enumerate(zip(
                one_each(title, images, "titles"), one_each(prompt, images, "prompts"),
                one_each(negative, images, "negatives"), one_each(seeds or [None], images, "seeds"), strict=True))]
        extra = {"grid": parse_manifest(single(manifest))} if manifest else None
        subfolders = [folder_name(named(single(folder), picture.size)) for picture in pictures]
        targets = [check_written(folders.output_folder() / subfolder) for subfolder in subfolders]
        made = parse_graph(nodes, graph.running_node()[1]) if nodes else None
        files: list[Path] = []
        progress = HostProgress()
        for picture, detail, target in zip(pictures, details, targets, strict=True):
            progress.check()
            said = {**parameters(detail, made, graph.running_node()[1]), **graph.metadata(cls)}
            saved = save_titled(picture, target, detail, metadata=said if graph.keeps_metadata() else {}, extra=extra)
            files.append(saved.picture)
        shown = ui.SavedImages([ui.SavedResult(file.name, subfolder, io.FolderType.output)
                                for file, subfolder in zip(files, subfolders, strict=True)])
        return io.NodeOutput([str(file) for file in files], ui=shown)
