"""Caption Pictures: a language model that sees describes pictures for a training set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io, ui

from ..atelier.captions.request import AT_ONCE, MOST_AT_ONCE, CaptionRequest, CaptionStyle, Existing, word_list
from ..atelier.dataset.types import Crop, Resolution, TrainingSet
from ..atelier.errors import AtelierError
from ..atelier.prompts.endpoints import LanguageModel
from . import sockets
from .host import folders
from .host.allowed import check_beside_pictures
from .host.images import from_image_tensor, to_image_tensor
from .host.progress import HostProgress
from .language_model import answer_cache, chat_client, seed_input, usage_text
from .training_set_widgets import size_inputs, trigger_input
from .validation import check
from .widgets import CAPTION_EDITS, FOLDER_LIST

if TYPE_CHECKING:
    from ..atelier.captions.training_set import CaptionedSet


class CaptionPictures(io.ComfyNode):
    """Describes pictures with a language model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        resolution, crop = size_inputs()
        resolution.advanced = crop.advanced = True
        return io.Schema(
            node_id="AtelierCaptionPictures",
            display_name="Caption Pictures",
            category="Atelier/dataset",
            description="A language model that sees pictures writes their captions, for training. The list on the "
                        "node shows them; change one, or leave a picture out, and run again.",
            search_aliases=["auto caption", "tagger", "describe image", "vision", "interrogate", "joycaption"],
            is_output_node=True,
            inputs=[
                io.String.Input("folder", default="", placeholder="or connect images or a training set",
                                extra_dict=FOLDER_LIST,
                                tooltip="Folder of pictures in ComfyUI's input folder, or the full path of one that "
                                        "user/atelier/allowed.toml lists. Empty where pictures are connected."),
                io.Combo.Input("style", options=CaptionStyle, default=CaptionRequest.style,
                               tooltip="Sentences suit SDXL and photographs, tags (in the order of booru sites) SD1.5 "
                                       "and anime models; short is one phrase; own follows the instruction alone."),
                io.String.Input("instruction", default=CaptionRequest.instruction, multiline=True,
                                placeholder="further wishes, such as: name the colours",
                                tooltip="Told to the model besides the style's rule; with own it is the only rule."),
                trigger_input(),
                io.String.Input("forbidden", default="", placeholder="photo of, image, blurry",
                                tooltip="Words that no caption holds, with commas."),
                io.Int.Input("token_limit", default=CaptionRequest.tokens, min=0, max=1000,
                             tooltip="Most tokens of a caption, the trigger included; CLIP sees 75. 0: no limit."),
                io.Combo.Input("existing", options=Existing, default=Existing.KEEP,
                               tooltip="Captions that are in text files beside the pictures: keep, and do not ask "
                                       "about these pictures, or replace."),
                io.Boolean.Input("caption_files", default=True,
                                 tooltip="Write each caption into a text file beside its picture. A run that was "
                                         "cut short goes on where it stopped. Connected images have no files."),
                seed_input("Same picture, settings and seed: the same caption, from the cache. Another seed asks "
                           "again."),
                io.Combo.Input("unanswered", options=["error", "skip"], default="error", advanced=True,
                               tooltip="Pictures that the model refuses to describe: name them once all others are "
                                       "done and stop, or leave them out."),
                io.Int.Input("at_once", default=AT_ONCE, min=1, max=MOST_AT_ONCE, advanced=True,
                             tooltip="Questions at a time. A model on this machine is often no faster with more."),
                resolution, crop,
                io.String.Input("edits", default="", advanced=True, extra_dict=CAPTION_EDITS,
                                tooltip="Changes made in the list on the node, which fills this."),
                sockets.Llm.Input("llm", optional=True, tooltip="From Language Model: one that sees pictures."),
                io.Image.Input("images", optional=True, tooltip="Pictures of the graph, in place of a folder."),
                sockets.TrainingSet.Input("training_set", optional=True,
                                          tooltip="From Image Folder or another, in place of a folder."),
                io.Clip.Input("clip", optional=True, tooltip="Counts tokens exactly; without it they are estimated."),
            ],
            outputs=[
                io.String.Output(display_name="captions", is_output_list=True,
                                 tooltip="A list: what follows runs once for each."),
                sockets.TrainingSet.Output(display_name="training set", tooltip="The pictures with these captions."),
            ],
        )

    @classmethod
    def validate_inputs(cls, folder: str | None = None) -> bool | str:
        """Report before the run that the folder is missing or not allowed."""
        return check(folders.input_folder, folder or None)

    @classmethod
    def fingerprint_inputs(cls, folder: str | None = None, **_: Any) -> str:
        """Change when a picture or caption of the folder does."""
        return folders.disk_state(folders.input_folder(folder)) if folder else ""

    @classmethod
    def execute(cls, folder: str, style: str, instruction: str, trigger: str, forbidden: str, token_limit: int,
                existing: str, caption_files: bool, seed: int, unanswered: str, at_once: int, resolution: int,
                crop: str, edits: str, llm: LanguageModel | None = None, images: Any = None,
                training_set: TrainingSet | None = None, clip: Any = None) -> io.NodeOutput:
        """Ask about each picture, and show the captions."""
        from ..atelier.captions.edits import parse_edits
        from ..atelier.captions.run import CaptionWriter
        from ..atelier.captions.training_set import caption_set
        from .host.clip_encoder import token_counter

        progress = HostProgress()
        request = CaptionRequest(style=CaptionStyle(style), instruction=instruction, trigger=trigger.strip(),
                                 forbidden=word_list(forbidden), tokens=token_limit, seed=seed)
        changes = parse_edits(edits)
        if llm is None:
            raise AtelierError("There is no language model to caption the pictures with.",
                               "Connect Language Model with a model that sees pictures; without one nobody has seen "
                               "them, so captions are not written offline.")
        client = chat_client(llm, progress)
        data = _pictures(folder, images, training_set, request.trigger, Resolution(resolution, Crop(crop)), progress)
        request = replace(request, trigger=request.trigger or data.trigger)
        files = caption_files and images is None and not _own(data)
        if files:
            for place in {sample.image.parent for sample in data.samples if not sample.prior}:
                check_beside_pictures(place)
        writer = CaptionWriter(client=client, request=request, cache=answer_cache(), files=files,
                               counter=token_counter(clip) if clip is not None else None,
                               root=folders.input_folder(folder) if folder.strip() else None,
                               existing=Existing(existing), at_once=at_once, progress=progress)
        result = caption_set(data, writer, changes, skip_failed=unanswered == "skip")
        text = _report(result, llm)
        progress.say(text)
        return io.NodeOutput([sample.captions[0] for sample in result.data.samples if not sample.prior], result.data,
                             ui=_review(cls, result, text))


def _pictures(folder: str, images: Any, training_set: TrainingSet | None, trigger: str, resolution: Resolution,
              progress: HostProgress) -> TrainingSet:
    """The pictures from the one place that is given."""
    from ..atelier.dataset.folder import FolderOptions, read_folder
    from ..atelier.dataset.from_images import from_images

    given = {"folder": bool(folder.strip()), "images": images is not None, "training set": training_set is not None}
    named = [name for name, there in given.items() if there]
    if len(named) != 1:
        raise AtelierError(f"Pictures come from {' and '.join(named) if named else 'nowhere'}.",
                           "Name a folder, or connect either images or a training set.")
    if training_set is not None:
        return training_set
    if images is not None:
        return from_images(from_image_tensor(images), [""], folders.work_folder("pictures"), trigger=trigger,
                           resolution=resolution)
    # A stand-in for captions that are yet to be written; those in files are read.
    options = FolderOptions(text=trigger or "picture", trigger=trigger, resolution=resolution)
    return read_folder(folders.input_folder(folder), options, progress)


def _own(data: TrainingSet) -> bool:
    """Whether the pictures are copies that the pack made of a graph's or a dataset's."""
    own = folders.work_folder("")
    return any(own in sample.image.parents for sample in data.samples)


def _report(result: CaptionedSet, llm: LanguageModel) -> str:
    counts = {"by " + llm.model: result.run.count("model"), "from the cache": result.run.count("cache"),
              "were there": result.run.count("file"), "edited": sum(item.edited for item in result.reviewed)}
    left_out = sum(item.left_out for item in result.reviewed)
    told = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    missing = f"; {left_out} left out" if left_out else ""
    return f"{len(result.reviewed) - left_out} captions: {told}{missing}{usage_text(result.run.usage)}"


def _review(cls: type[io.ComfyNode], result: CaptionedSet, text: str) -> dict[str, Any]:
    from ..atelier.captions.review_sheet import COLUMNS, review_sheet

    sheet = to_image_tensor([review_sheet([item.sample.image for item in result.reviewed])])
    captions = [{"digest": item.sample.digest, "file": Path(item.sample.image).name, "caption": item.caption,
                 "edited": item.edited, "left_out": item.left_out, "failure": item.failure}
                for item in result.reviewed]
    return {**ui.PreviewImage(sheet, cls=cls).as_dict(), "text": (text,), "captions": captions, "columns": (COLUMNS,)}
