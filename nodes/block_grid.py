"""Block Grid: compose pictures into a grid of blocks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io, ui

from ..atelier.errors import AtelierError
from ..atelier.grid.compose import Fit, compose, parse_color
from ..atelier.grid.layout import PRESETS, Gaps, Layout, Placement, arrange, rows_for
from . import sockets
from .batching import one_each, single
from .host.images import from_image_tensor, to_image_tensor

if TYPE_CHECKING:
    from ..atelier.grid.manifest import Manifest, Origin
    from ..atelier.score.result import Scores

_CUSTOM = "custom"

_LAYOUT = Layout()

_CAPTIONS = ["none", "prompt", "score", "score and prompt"]


class BlockGrid(io.ComfyNode):
    """Composes a grid of blocks, with one unique picture in each."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierBlockGrid",
            display_name="Block Grid",
            category="Atelier/grid",
            description="Composes a grid of blocks, each with one unique picture and fillers around it, and a manifest "
                        "that says what is where.",
            search_aliases=["grid", "contact sheet", "collage", "xy plot", "image grid"],
            is_input_list=True,
            is_output_node=True,
            inputs=[
                io.Image.Input("images", tooltip="The unique pictures, one for each block."),
                io.Int.Input("block", default=_LAYOUT.block, min=1, max=16,
                             tooltip="Cells along a block's side: 2 makes blocks of four, 1 a grid without fillers."),
                io.Int.Input("columns", default=0, min=0, max=1000,
                             tooltip="Columns of blocks; 0 makes the grid as square as can be."),
                io.Combo.Input("placement", options=Placement, default=Placement.RANDOM,
                               tooltip="Which cell of each block shows the unique picture."),
                io.Int.Input("seed", default=0, min=0, max=2**63 - 1, control_after_generate=True,
                             tooltip="Decides the random placement."),
                io.Combo.Input("gaps", options=[*PRESETS, _CUSTOM], default=next(iter(PRESETS)),
                               tooltip="Empty pixels inside blocks, between blocks and around the grid."),
                io.Combo.Input("fit", options=Fit, default=Fit.CROP, advanced=True,
                               tooltip="Pictures of another shape than the cells: cut their sides (crop), show all "
                                       "with bars (pad), or squeeze (stretch)."),
                io.Combo.Input("captions", options=_CAPTIONS, default="none",
                               tooltip="What to write below each cell, where it is known."),
                io.Int.Input("cell_width", default=_LAYOUT.cell_width, min=0, max=4096, advanced=True,
                             tooltip="Pixels; 0 takes the first unique picture's width."),
                io.Int.Input("cell_height", default=_LAYOUT.cell_height, min=0, max=4096, advanced=True,
                             tooltip="Pixels; 0 takes the first unique picture's height."),
                io.String.Input("background", default="white", advanced=True,
                                tooltip="Colour of the gaps: a name or hex digits such as #1a1a1a."),
                io.Int.Input("gap_inside", default=Gaps().inside, min=0, max=1000, advanced=True,
                             tooltip="For custom gaps: pixels between the cells of a block."),
                io.Int.Input("gap_between", default=Gaps().between, min=0, max=1000, advanced=True,
                             tooltip="For custom gaps: pixels between blocks."),
                io.Int.Input("margin", default=Gaps().margin, min=0, max=1000, advanced=True,
                             tooltip="For custom gaps: pixels around the grid."),
                io.Image.Input("fillers", optional=True,
                               tooltip="Pictures for the other cells: three for each block of 2 × 2. What is over is "
                                       "left out."),
                sockets.Scores.Input("scores", optional=True, tooltip="Of the unique pictures, from CLIP Score."),
                io.String.Input("prompts", optional=True, force_input=True,
                                tooltip="Of the unique pictures: one for all, or one for each."),
                io.Int.Input("seeds", optional=True, force_input=True, tooltip="Of the unique pictures."),
                io.String.Input("filler_prompts", optional=True, force_input=True, tooltip="Of generated fillers."),
                io.String.Input("filler_sources", optional=True, force_input=True,
                                tooltip="Where fillers come from, of Filler Images."),
                io.String.Input("labels", default="", optional=True, placeholder="10 steps | 40 steps",
                                tooltip="What sets the unique pictures apart, to write below them: one for each with | "
                                        "or a new line between, or a list."),
            ],
            outputs=[
                io.Image.Output(display_name="grid", tooltip="The whole grid."),
                io.String.Output(display_name="manifest",
                                 tooltip="JSON: of every cell its place, picture, prompt, seed, source and score."),
            ],
        )

    @classmethod
    def execute(cls, images: list[Any], block: list[int], columns: list[int], placement: list[str], seed: list[int],
                gaps: list[str], fit: list[str], captions: list[str], cell_width: list[int], cell_height: list[int],
                background: list[str], gap_inside: list[int], gap_between: list[int], margin: list[int],
                fillers: list[Any] | None = None, scores: list[Scores] | None = None,
                prompts: list[str] | None = None, seeds: list[int] | None = None,
                filler_prompts: list[str] | None = None, filler_sources: list[str] | None = None,
                labels: list[str] | None = None) -> io.NodeOutput:
        """Arrange the pictures, draw the grid and write the manifest."""
        from ..atelier.grid.manifest import describe

        unique = [picture for batch in images for picture in from_image_tensor(batch)]
        filler_pictures = [picture for batch in fillers or () for picture in from_image_tensor(batch)]
        rows, across = rows_for(len(unique), single(columns))
        layout = Layout(
            rows=rows, columns=across, block=single(block), cell_width=single(cell_width) or unique[0].width,
            cell_height=single(cell_height) or unique[0].height,
            gaps=PRESETS.get(single(gaps)) or Gaps(single(gap_inside), single(gap_between), single(margin)))
        needed = len(unique) * (layout.cells_of_block - 1)
        cells = arrange(layout, len(unique), min(len(filler_pictures), needed), Placement(single(placement)),
                        single(seed))
        lines = [label.strip() for text in labels or () for label in text.replace("|", "\n").splitlines()
                 if label.strip()]
        origins = _Facts(prompts, seeds, single(scores) if scores else None, labels=lines).origins(images)
        filler_origins = _Facts(filler_prompts, sources=filler_sources).origins(fillers or [])
        texts = {index: _caption(single(captions), (origins if cell.unique else filler_origins)[cell.picture])
                 for index, cell in enumerate(cells)}
        if any(texts.values()):
            # Room for two to three lines of a prompt, or for one line.
            share = 4 if "prompt" in single(captions) else 8
            layout = replace(layout, caption_height=max(20, layout.cell_width // share))
        grid = compose(layout, cells, unique, filler_pictures, fit=Fit(single(fit)),
                       background=parse_color(single(background)), captions=texts)
        random = Placement(single(placement)) is Placement.RANDOM
        manifest = describe(layout, cells, origins, filler_origins, single(seed) if random else None)
        image = to_image_tensor([grid])
        return io.NodeOutput(image, json.dumps(manifest.to_json(), ensure_ascii=False),
                             ui={**ui.PreviewImage(image, cls=cls).as_dict(), "cells": tuple(_unique_cells(manifest))})


def _unique_cells(manifest: Manifest) -> list[dict[str, Any]]:
    """Boxes and labels of the unique cells, as fractions of the grid's sides, for the editor to outline."""
    return [{"x": cell.box.x / manifest.width, "y": cell.box.y / manifest.height,
             "width": cell.box.width / manifest.width, "height": cell.box.height / manifest.height,
             "label": cell.origin.label or cell.origin.prompt} for cell in manifest.cells if cell.unique]


@dataclass(frozen=True)
class _Facts:
    """Prompts, seeds, scores, sources and labels of some pictures, as far as the inputs give them."""

    prompts: Sequence[str] | None
    seeds: Sequence[int] | None = None
    scores: Scores | None = None
    sources: Sequence[str] | None = None
    labels: Sequence[str] = ()

    def origins(self, batches: Sequence[Any]) -> list[Origin]:
        """The origin of each picture."""
        from ..atelier.grid.manifest import Origin

        count = sum(len(batch) for batch in batches)
        if self.scores is not None and len(self.scores.items) != count:
            raise AtelierError(f"There are {count} pictures and {len(self.scores.items)} scores.",
                               "Connect the scores of the unique pictures.")
        items = self.scores.items if self.scores else [None] * count
        prompts = one_each(self.prompts, batches, "prompts") if self.prompts else [
            score.text if score else "" for score in items]
        seeds = one_each(self.seeds, batches, "seeds") if self.seeds else [None] * count
        sources = one_each(self.sources, batches, "sources") if self.sources else [""] * count
        if self.labels and len(self.labels) != count:
            raise AtelierError(f"There are {count} pictures and {len(self.labels)} labels.",
                               f"Write {count} with | between, one for each unique picture, or none.")
        return [Origin(prompt, seed, source, score.value if score else None, label)
                for prompt, seed, source, score, label
                in zip(prompts, seeds, sources, items, self.labels or [""] * count, strict=True)]


def _caption(kind: str, origin: Origin) -> str:
    score = f"{origin.score:.4f}" if origin.score is not None and "score" in kind else ""
    return " · ".join(part for part in (origin.label, score, origin.prompt if "prompt" in kind else "") if part)
