"""The node that trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from comfy_api.latest import io, ui

from ..atelier.files import file_name
from . import sockets
from .host import device, folders, graph
from .host.allowed import check_written
from .host.images import to_image_tensor
from .panel.monitor import TrainingProgress, sessions, training_progress
from .training_request import training_inputs, training_request
from .trigger_warning import trigger_warning
from .validation import check


class TrainLora(io.ComfyNode):
    """Train a LoRA and hand it on."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierTrainLora",
            display_name="Train LoRA (Atelier)",
            category="Atelier/training",
            description="Trains a LoRA on a training set and writes it to models/loras. Cancelling keeps what was "
                        "learnt; running again goes on where it stopped. A finished run is not repeated.",
            search_aliases=["train lora", "fine-tune", "finetune", "lora training", "dreambooth", "kohya"],
            is_output_node=True,
            inputs=[
                sockets.DiffusersModel.Input("model", tooltip="The model to fine-tune. It stays as it is."),
                *training_inputs(),
            ],
            outputs=[
                sockets.LoraModel.Output(display_name="lora", tooltip="For Apply LoRA, or core's Load LoRA Model."),
                io.String.Output(display_name="lora name", tooltip="As core's Load LoRA lists the written file."),
                io.Image.Output(display_name="loss plot", tooltip="Training and validation loss by step."),
                io.Image.Output(display_name="samples",
                                tooltip="Pictures drawn while training. Nothing comes out where none were drawn."),
                io.String.Output(display_name="report", tooltip="What was done, in a few lines."),
                io.String.Output(display_name="saved steps",
                                 tooltip="The LoRAs that save_every kept, and last the finished one, one a line: the "
                                         "values of an axis of LoRAs in XY Grid."),
            ],
        )

    @classmethod
    def validate_inputs(cls, name: str | None = None) -> bool | str:
        """The name must be that of a file."""
        return check(file_name, name)

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> int:
        """Runs the node again once a stopped training was asked to go on; a finished one is found, not repeated."""
        return sessions.continued

    @classmethod
    def execute(cls, model: Any, training_set: Any, name: str, preset: str, length: int, unit: str, seed: int,
                lora_config: Mapping[str, Any] | None = None, options: Mapping[str, Any] | None = None,
                sample_prompt: str = "") -> io.NodeOutput:
        """Train, or find the finished run, and show its curve and pictures."""
        from ..atelier.train.devices import RunPaths
        from ..atelier.train.run import train

        paths = RunPaths(folders.model_folder("loras"), folders.work_folder("runs"), folders.work_folder("cache"),
                         str(device.torch_device()))
        check_written(paths.loras / f"{file_name(name)}.safetensors")
        request = training_request(training_set, preset, length, unit, seed, lora_config, options, sample_prompt)
        warning = trigger_warning(training_set.trigger)
        with training_progress(cls, can_sample=bool(request.samples.prompts)) as progress:
            report = train(file_name(name), model, training_set, request, paths, progress,
                           continue_stopped=progress.continues, exclusive=device.exclusive_device)
            return _output(cls, report, progress, warning)


def _output(cls: type[io.ComfyNode], report: Any, progress: TrainingProgress, warning: str) -> io.NodeOutput:
    import torch
    from PIL import Image

    from ..atelier.lora.file import load_lora
    from ..atelier.lora.formats import kohya_state

    def tensor(paths: list[Any]) -> Any:
        return to_image_tensor([Image.open(path) for path in paths])

    plot = tensor([report.folder.plot])
    samples = tensor(report.folder.samples) if report.folder.samples else None
    text = "\n".join(filter(None, [report.text(), warning]))
    # A run that was stopped and kept says so even when it is found again: it can go on.
    progress.end("reused" if report.reused and not report.result.stopped else report.result.status, warning)
    shown = ui.PreviewImage([*plot, *(samples if samples is not None else [])], cls=cls).as_dict()
    state = kohya_state(load_lora(report.lora), torch.float32)
    names = [str(path.relative_to(folders.model_folder("loras"))) for path in report.steps]
    return io.NodeOutput(state, names[-1], plot, graph.blocked_output() if samples is None else samples, text,
                         "\n".join(names),
                         ui={**shown, "text": (text,), "run": (progress.run,)})
