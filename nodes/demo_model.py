"""Demo Model: the small model that ships, with its CLIP and pictures, written when the graph runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from . import sockets
from .host import folders
from .host.allowed import check_written
from .host.progress import HostProgress

if TYPE_CHECKING:
    from ..atelier.demo.folders import DemoFolders


@dataclass
class _Presence:
    """What this process knows of the files."""

    written: bool = False
    """Whether a run left everything in place."""
    losses: int = 0
    """How often something was missing again after that."""


_presence = _Presence()


class DemoModel(io.ComfyNode):
    """Writes the demo's files where they belong, and hands on their names."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierDemoModel",
            display_name="Demo Model",
            category="Atelier/model",
            description="Writes a small trained model, a CLIP that knows its pictures, and pictures to learn from into "
                        "ComfyUI's folders, unless they are there. It ships with the pack: nothing is downloaded.",
            search_aliases=["example", "sample model", "test model", "no download"],
            is_output_node=True,
            inputs=[],
            outputs=[
                sockets.DiffusersModel.Output(display_name="model",
                                              tooltip="For Train LoRA, Load for Sampling or Export Checkpoint."),
                sockets.Choice.Output(display_name="checkpoint",
                                      tooltip="Its name, for Convert Checkpoint or core's Load Checkpoint."),
                sockets.Choice.Output(display_name="clip model", tooltip="For the model of CLIP Score."),
                sockets.Choice.Output(display_name="sketches",
                                      tooltip="Folder of pencil sketches with captions, for Image Folder: a style to "
                                              "learn."),
                sockets.Choice.Output(display_name="plain pictures",
                                      tooltip="Folder of pictures in the model's own look, for the prior of Image "
                                              "Folder."),
                sockets.Choice.Output(display_name="fillers", tooltip="Folder of pictures for Filler Images."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> int:
        """Change when written files are gone, so that they are written again; their first writing changes nothing."""
        if _presence.written and not _folders().complete():
            _presence.written = False
            _presence.losses += 1
        return _presence.losses

    @classmethod
    def execute(cls) -> io.NodeOutput:
        """Write what is missing."""
        from ..atelier.demo.folders import KINDS, PICTURES, fill_folders
        from ..atelier.models.open import open_model

        progress = HostProgress()
        checkpoint, clip, *_ = fill_folders(_folders(), progress)
        _presence.written = True
        report = f"{checkpoint.name}, {clip.name} and input/{PICTURES} are in place."
        progress.say(report)
        return io.NodeOutput(open_model(checkpoint, progress=progress), checkpoint.name, clip.name,
                             *(f"{PICTURES}/{kind}" for kind in KINDS), ui={"text": (report,)})


def _folders() -> DemoFolders:
    from ..atelier.demo.folders import PICTURES, DemoFolders

    made = DemoFolders(checkpoints=folders.model_folder("checkpoints"), clips=folders.clip_score_folder(),
                       input=folders.new_input_folder(PICTURES).parent)
    for path in made.files()[:2]:
        check_written(path)
    return made
