"""Hub Dataset: a training set from the Hugging Face hub or a local data set."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from comfy_api.latest import io

from ..atelier.dataset.hub import HubQuery, read_hub
from ..atelier.dataset.types import Crop, Resolution
from . import sockets
from .host import folders
from .host.progress import HostProgress
from .training_set_widgets import size_inputs, trigger_input, use_inputs
from .validation import check

_QUERY = HubQuery(source="owner/name")
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)


class HubDataset(io.ComfyNode):
    """Makes a training set of a data set on the Hugging Face hub, or of a local one."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierHubDataset",
            display_name="Hub Dataset",
            category="Atelier/dataset",
            description="A training set from a data set of the Hugging Face hub or a local one. Reading stops at the "
                        "last picture wanted; what was fetched is kept. Needs: pip install datasets",
            search_aliases=["huggingface", "datasets", "wikiart", "flickr8k", "parquet"],
            inputs=[
                io.String.Input("dataset", default="", placeholder="huggan/wikiart, or a folder",
                                tooltip="Id on the hub, or a folder in ComfyUI's input with pictures, Parquet files or "
                                        "a saved data set. Other folders must stand in user/atelier/allowed.toml."),
                io.String.Input("split", default=_QUERY.split, tooltip="Usually train."),
                io.String.Input("column", default=_QUERY.column, placeholder="style",
                                tooltip="Only rows with a certain value in this column. Empty: all rows."),
                io.String.Input("value", default=_QUERY.value, placeholder="Impressionism",
                                tooltip="That value: the name of a class, its number, or the column's text."),
                io.Int.Input("limit", default=_QUERY.limit, min=1, max=100_000, tooltip="At most this many pictures."),
                io.String.Input("caption", default=_QUERY.caption, multiline=True,
                                placeholder="a painting by {artist}, {style}",
                                tooltip="Template over columns; class numbers become names, and {title|artwork} writes "
                                        "artwork where there is no title. Empty: the column that is called caption, "
                                        "text or the like."),
                trigger_input(),
                *size_inputs(), *use_inputs(),
                io.String.Input("image_column", default=_QUERY.image_column, advanced=True,
                                tooltip="Empty: the first column of pictures."),
            ],
            outputs=[sockets.TrainingSet.Output(display_name="training set",
                                                tooltip="For Train LoRA or Filler Images.")],
        )

    @classmethod
    def validate_inputs(cls, dataset: str | None = None) -> bool | str:
        """Report before the run that the folder is missing or not allowed."""
        return check(_source, dataset)

    @classmethod
    def fingerprint_inputs(cls, dataset: str | None = None, **_: Any) -> str:
        """Change when a local data set does; what was fetched from the hub does not change."""
        source = Path(_source(dataset)) if dataset else None
        return folders.disk_state(source) if source is not None and source.is_dir() else ""

    @classmethod
    def execute(cls, dataset: str, split: str, column: str, value: str, limit: int, caption: str, trigger: str,
                resolution: int, crop: str, repeats: int, flip: bool, image_column: str) -> io.NodeOutput:
        """Fetch the pictures that are not in the cache yet."""
        query = HubQuery(source=_source(dataset), split=split.strip(), column=column.strip(), value=value.strip(),
                         limit=limit, caption=caption.strip(), image_column=image_column.strip())
        return io.NodeOutput(read_hub(query, folders.work_folder("hub"), trigger=trigger.strip(),
                                      resolution=Resolution(resolution, Crop(crop)), repeats=repeats, flip=flip,
                                      progress=HostProgress()))


def _source(text: str) -> str:
    """The full path of a folder if there is one, else `text` as the id of a data set on the hub."""
    text = text.strip()
    # `datasets` would also read a folder of that name below the server's current one.
    if _HUB_ID.fullmatch(text) and not Path(text).exists() and not folders.is_input_folder(text):
        return text
    return str(folders.input_folder(text))
