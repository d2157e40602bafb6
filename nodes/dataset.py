"""Nodes that make training sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from comfy_api.latest import io, ui

from ..atelier.dataset.folder import CaptionSource, FolderOptions, read_folder
from ..atelier.dataset.hub import HubQuery, read_hub
from ..atelier.dataset.types import Crop, Resolution
from ..atelier.errors import AtelierError
from . import host, sockets
from .checks import verdict
from .numbers import arrows

_FOLDER = FolderOptions()
_SIZE = Resolution()
_QUERY = HubQuery(source="owner/name")


def _sizing() -> list[io.Input]:
    return [
        io.Int.Input("resolution", default=_SIZE.size, min=64, max=4096, step=8,
                     tooltip="Pixels of a side. 512 suits SD1.x, 768 SD2.x, 1024 SDXL."),
        io.Combo.Input("crop", options=Crop, default=_SIZE.crop,
                       tooltip="How pictures get that size: the centre, the window with most detail (focal), bars at "
                               "the sides that do not count (pad), or sizes of equal area and like shape (bucket)."),
    ]


def _use() -> list[io.Input]:
    return [
        io.Int.Input("repeats", default=_FOLDER.repeats, min=1, max=10_000,
                     tooltip="How often each picture is used in one epoch."),
        io.Boolean.Input("flip", default=_FOLDER.flip,
                         tooltip="Use pictures mirrored half of the time. Not for faces, text or anything one-sided."),
    ]


def _buckets() -> list[io.Input]:
    return [
        io.Int.Input("bucket_step", default=_SIZE.bucket_step, min=8, max=512, step=8, advanced=True,
                     tooltip="Sides of buckets are multiples of this."),
        io.Float.Input("max_aspect", default=_SIZE.max_aspect, min=1, max=8, step=0.01, advanced=True,
                       extra_dict=arrows(0.25),
                       tooltip="Longest side ratio of a bucket; longer pictures are cropped to it."),
    ]


class ImageFolder(io.ComfyNode):
    """A folder of pictures with captions."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierImageFolder",
            display_name="Image Folder",
            category="Atelier/dataset",
            description="A training set from a folder of pictures and their captions. Shows the pictures as the "
                        "trainer will see them.",
            search_aliases=["dataset", "training images", "captions", "load folder"],
            is_output_node=True,
            inputs=[
                io.String.Input("folder", default="", placeholder="a folder in ComfyUI's input, or a full path",
                                tooltip="Folder of pictures: a full path, or one relative to ComfyUI's input folder. "
                                        "Folders called N_name in it are used N times an epoch."),
                io.Combo.Input("captions", options=CaptionSource, default=_FOLDER.captions,
                               tooltip="From text files beside the pictures (sidecar), from a template, one fixed text "
                                       "for all, or the prompts that the pictures say they were made with (metadata; "
                                       "a text file comes first)."),
                io.String.Input("caption", default="", multiline=True,
                                placeholder="{trigger}, a photo of {stem}",
                                tooltip="The template, with {stem}, {trigger} and {folder}; or the fixed text; or what "
                                        "pictures without a text file or prompt of their own get."),
                io.String.Input("trigger", default=_FOLDER.trigger,
                                tooltip="A rare word that will stand for what is learnt. Put in front of captions that "
                                        "lack it."),
                *_sizing(), *_use(), *_buckets(),
                io.Boolean.Input("recursive", default=_FOLDER.recursive, advanced=True,
                                 tooltip="Also use pictures in folders below."),
                io.Combo.Input("unreadable", options=["error", "skip"], default=_FOLDER.unreadable, advanced=True,
                               tooltip="Damaged pictures: name them all and stop, or leave them out."),
                io.Boolean.Input("caption_lines", default=_FOLDER.caption_lines, advanced=True,
                                 tooltip="Each line of a text file is a caption of its own, used by turns."),
                io.String.Input("masks", default="", advanced=True,
                                tooltip="Folder of loss masks, named like the pictures: white counts, black does not."),
                io.String.Input("prior", default="", advanced=True,
                                tooltip="Folder of prior-preservation pictures: what the model should not forget."),
                io.String.Input("prior_caption", default=_FOLDER.prior_text, advanced=True,
                                tooltip="Caption of prior-preservation pictures that have no text file."),
            ],
            outputs=[
                sockets.TrainingSet.Output(display_name="training set", tooltip="For Train LoRA."),
                io.Image.Output(display_name="preview", tooltip="The first pictures as the trainer will see them."),
            ],
        )

    @classmethod
    def validate_inputs(cls, folder: str | None = None) -> bool | str:
        """The folder must be there."""
        return verdict(host.input_folder, folder)

    @classmethod
    def fingerprint_inputs(cls, folder: str | None = None, masks: str | None = None, prior: str | None = None,
                           **_: Any) -> str:
        """Change when a picture or caption does, so that the host reads the folder again."""
        return " ".join(host.disk_state(host.input_folder(text)) for text in (folder, masks, prior) if text)

    @classmethod
    def execute(cls, folder: str, captions: str, caption: str, trigger: str, resolution: int, crop: str, repeats: int,
                flip: bool, bucket_step: int, max_aspect: float, recursive: bool, unreadable: str, caption_lines: bool,
                masks: str, prior: str, prior_caption: str) -> io.NodeOutput:
        """Read the folder and show what was read."""
        from ..atelier.dataset.preview import contact_sheet

        options = FolderOptions(
            captions=CaptionSource(captions), template=caption.strip() or _FOLDER.template, text=caption.strip(),
            caption_lines=caption_lines, trigger=trigger.strip(),
            resolution=Resolution(resolution, Crop(crop), bucket_step, max_aspect), repeats=repeats, flip=flip,
            recursive=recursive, unreadable=unreadable, masks=host.input_folder(masks) if masks.strip() else None,
            prior=host.input_folder(prior) if prior.strip() else None, prior_text=prior_caption.strip())
        data = read_folder(host.input_folder(folder), options, host.HostProgress())
        sheet = host.to_image_tensor([contact_sheet(data)])
        return io.NodeOutput(data, sheet, ui=ui.PreviewImage(sheet, cls=cls))


class ImagesToTrainingSet(io.ComfyNode):
    """Pictures of the graph with captions."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierImagesToTrainingSet",
            display_name="Images to Training Set",
            category="Atelier/dataset",
            description="A training set from pictures that are in the graph: loaded, generated or edited.",
            search_aliases=["dataset", "training images"],
            inputs=[
                io.Image.Input("images", tooltip="The pictures."),
                io.String.Input("captions", default="", multiline=True,
                                tooltip="One line for each picture, or one line for all."),
                io.String.Input("trigger", default=_FOLDER.trigger,
                                tooltip="A rare word that will stand for what is learnt. Put in front of captions that "
                                        "lack it."),
                *_sizing(), *_use(), *_buckets(),
            ],
            outputs=[sockets.TrainingSet.Output(display_name="training set", tooltip="For Train LoRA.")],
        )

    @classmethod
    def execute(cls, images: Any, captions: str, trigger: str, resolution: int, crop: str, repeats: int, flip: bool,
                bucket_step: int, max_aspect: float) -> io.NodeOutput:
        """Keep the pictures as files, named by their content, and refer to them."""
        from ..atelier.dataset.from_images import from_images

        lines = [line.strip() for line in captions.splitlines() if line.strip()] or [""]
        return io.NodeOutput(from_images(
            host.from_image_tensor(images), lines, host.work_folder("pictures"), trigger=trigger.strip(),
            resolution=Resolution(resolution, Crop(crop), bucket_step, max_aspect), repeats=repeats, flip=flip))


class HubDataset(io.ComfyNode):
    """A training set from the Hugging Face hub, or from a local data set."""

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
                                tooltip="Id on the hub, or a folder with pictures, Parquet files or a saved data set."),
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
                io.String.Input("trigger", default="",
                                tooltip="A rare word that will stand for what is learnt. Put in front of captions that "
                                        "lack it."),
                *_sizing(), *_use(),
                io.String.Input("image_column", default=_QUERY.image_column, advanced=True,
                                tooltip="Empty: the first column of pictures."),
            ],
            outputs=[sockets.TrainingSet.Output(display_name="training set",
                                                tooltip="For Train LoRA or Filler Images.")],
        )

    @classmethod
    def fingerprint_inputs(cls, dataset: str | None = None, **_: Any) -> str:
        """Change when a local data set does. What was fetched from the hub stays as it is."""
        source = Path(_source(dataset)) if dataset else None
        return host.disk_state(source) if source is not None and source.is_dir() else ""

    @classmethod
    def execute(cls, dataset: str, split: str, column: str, value: str, limit: int, caption: str, trigger: str,
                resolution: int, crop: str, repeats: int, flip: bool, image_column: str) -> io.NodeOutput:
        """Fetch what was not fetched before."""
        query = HubQuery(source=_source(dataset), split=split.strip(), column=column.strip(), value=value.strip(),
                         limit=limit, caption=caption.strip(), image_column=image_column.strip())
        return io.NodeOutput(read_hub(query, host.work_folder("hub"), trigger=trigger.strip(),
                                      resolution=Resolution(resolution, Crop(crop)), repeats=repeats, flip=flip,
                                      progress=host.HostProgress()))


def _source(text: str) -> str:
    """A folder's full path if there is such a folder, else the id of a data set on the hub."""
    try:
        return str(host.input_folder(text))
    except AtelierError:
        return text.strip()


NODES: list[type[io.ComfyNode]] = [ImageFolder, HubDataset, ImagesToTrainingSet]
