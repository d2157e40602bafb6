"""Image Folder: a training set from a folder of pictures with captions."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ..atelier.dataset.folder import CaptionSource, FolderOptions, read_folder
from ..atelier.dataset.types import Crop, Resolution, TrainingSet
from . import sockets
from .host import folders
from .host.images import to_image_tensor
from .host.progress import HostProgress
from .training_set_widgets import bucket_inputs, size_inputs, trigger_input, use_inputs
from .validation import check
from .widgets import FOLDER_LIST

_OPTIONS = FolderOptions()


class ImageFolder(io.ComfyNode):
    """Reads a folder of pictures with captions."""

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
                io.String.Input("folder", default="", placeholder="a folder in ComfyUI's input", extra_dict=FOLDER_LIST,
                                tooltip="Folder of pictures in ComfyUI's input folder, or the full path of one that "
                                        "user/atelier/allowed.toml lists. Folders called N_name in it are used N times "
                                        "an epoch."),
                io.Combo.Input("captions", options=CaptionSource, default=_OPTIONS.captions,
                               tooltip="From text files beside the pictures (sidecar; without any, the trigger or the "
                                       "folder's name), from a template, one fixed text for all, or the prompts that "
                                       "the pictures say they were made with (metadata; a text file comes first)."),
                io.String.Input("caption", default="", multiline=True,
                                placeholder="{trigger}, a photo of {stem}",
                                tooltip="The template, with {stem}, {trigger} and {folder}; or the fixed text; or what "
                                        "pictures without a text file or prompt of their own get."),
                trigger_input(),
                *size_inputs(), *use_inputs(), *bucket_inputs(),
                io.Boolean.Input("recursive", default=_OPTIONS.recursive, advanced=True,
                                 tooltip="Also use pictures in folders below."),
                io.Combo.Input("unreadable", options=["error", "skip"], default=_OPTIONS.unreadable, advanced=True,
                               tooltip="Damaged pictures: name them all and stop, or leave them out."),
                io.Boolean.Input("caption_lines", default=_OPTIONS.caption_lines, advanced=True,
                                 tooltip="Each line of a text file is a caption of its own, used by turns."),
                io.String.Input("masks", default="", advanced=True,
                                tooltip="Folder of loss masks, named like the pictures: white counts, black does not."),
                io.String.Input("prior", default="", advanced=True,
                                tooltip="Folder of prior-preservation pictures: what the model should not forget."),
                io.String.Input("prior_caption", default=_OPTIONS.prior_text, advanced=True,
                                tooltip="Caption of prior-preservation pictures that have no text file."),
            ],
            outputs=[
                sockets.TrainingSet.Output(display_name="training set", tooltip="For Train LoRA."),
                io.Image.Output(display_name="preview", tooltip="The first pictures as the trainer will see them."),
            ],
        )

    @classmethod
    def validate_inputs(cls, folder: str | None = None) -> bool | str:
        """Report before the run that the folder is missing or not allowed. Of the others the run reports it first of
        all: the host would say an answer about one widget of each that is asked about."""
        return check(folders.input_folder, folder)

    @classmethod
    def fingerprint_inputs(cls, folder: str | None = None, masks: str | None = None, prior: str | None = None,
                           **_: Any) -> str:
        """Change when a picture or caption does, so that the host reads the folder again."""
        return " ".join(folders.disk_state(folders.input_folder(text)) for text in (folder, masks, prior) if text)

    @classmethod
    def execute(cls, folder: str, captions: str, caption: str, trigger: str, resolution: int, crop: str, repeats: int,
                flip: bool, bucket_step: int, max_aspect: float, recursive: bool, unreadable: str, caption_lines: bool,
                masks: str, prior: str, prior_caption: str) -> io.NodeOutput:
        """Read the folder and show a preview."""
        from ..atelier.dataset.advice import advice
        from ..atelier.dataset.preview import contact_sheet

        options = FolderOptions(
            captions=CaptionSource(captions), template=caption.strip() or _OPTIONS.template, text=caption.strip(),
            caption_lines=caption_lines, trigger=trigger.strip(),
            resolution=Resolution(resolution, Crop(crop), bucket_step, max_aspect), repeats=repeats, flip=flip,
            recursive=recursive, unreadable=unreadable, masks=folders.input_folder(masks) if masks.strip() else None,
            prior=folders.input_folder(prior) if prior.strip() else None, prior_text=prior_caption.strip())
        data = read_folder(folders.input_folder(folder), options, HostProgress())
        sheet = to_image_tensor([contact_sheet(data)])
        text = "\n".join([_count(data), *advice(data)])
        return io.NodeOutput(data, sheet, ui={**ui.PreviewImage(sheet, cls=cls).as_dict(), "text": (text,)})


def _count(data: TrainingSet) -> str:
    prior = sum(sample.prior for sample in data.samples)
    count = len(data.samples) - prior
    return (f"{count} picture{'s' * (count != 1)}" + (f", {prior} to preserve what the model knows" if prior else "")
            + (f", {len(data.skipped)} left out" if data.skipped else ""))
