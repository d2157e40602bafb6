"""Model to Compare: one column of a comparison."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from . import sockets
from .comparison import NO_LORA
from .host import folders, graph
from .validation import check
from .widgets import arrow_step

if TYPE_CHECKING:
    from ..atelier.compare.compared_model import ComparedModel

_BY_MODEL = "by the model"


class ModelToCompare(io.ComfyNode):
    """Adds a model to a comparison, as one column."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierModelToCompare",
            display_name="Model to Compare",
            category="Atelier/compare",
            description="A checkpoint, with or without a LoRA, for Compare Models. Chain one to the next.",
            search_aliases=["compare", "xy plot", "contestant", "sweep"],
            inputs=[
                io.Combo.Input("checkpoint", options=folders.model_names("checkpoints"),
                               tooltip="A file in models/checkpoints."),
                io.Combo.Input("lora", options=[NO_LORA, *folders.model_names("loras")], default=NO_LORA,
                               tooltip="A file in models/loras, or none."),
                io.Float.Input("strength", default=1.0, min=-10, max=10, step=0.05,
                               tooltip="Strength of the LoRA, on model and text encoder."),
                io.String.Input("label", default="", tooltip="Its name in grid and table. Empty: the files' names."),
                io.Combo.Input("sampler", options=[_BY_MODEL, *graph.sampler_names()], default=_BY_MODEL, advanced=True,
                               tooltip="By the model: what suits its family, and Turbo and Lightning by their names."),
                io.Combo.Input("scheduler", options=[_BY_MODEL, *graph.scheduler_names()], default=_BY_MODEL,
                               advanced=True, tooltip="How noise levels are spaced."),
                io.Int.Input("steps", default=0, min=0, max=10_000, advanced=True,
                             tooltip="Sampling steps. 0: by the model."),
                io.Float.Input("cfg", default=0.0, min=0, max=100, step=0.01, advanced=True,
                               extra_dict=arrow_step(0.5),
                               tooltip="Guidance scale. 0: by the model."),
                io.Combo.Input("precision", options=["default", "fp32", "fp16", "bf16"], default="default",
                               advanced=True, tooltip="What the model computes in; lower saves time and memory on "
                                                      "GPUs that can."),
                sockets.ComparedModels.Input("others", optional=True, tooltip="Models that come before this one."),
                io.String.Input("lora_name", optional=True, force_input=True,
                                tooltip="Name of a LoRA from Train LoRA or Convert LoRA, in place of the one chosen."),
            ],
            outputs=[sockets.ComparedModels.Output(display_name="models",
                                                   tooltip="For Compare Models, or the next Model to Compare.")],
        )

    @classmethod
    def validate_inputs(cls, checkpoint: str | None = None, lora: str | None = None) -> bool | str:
        """Report before the run that a file is missing."""
        names = {"checkpoints": checkpoint, "loras": None if lora == NO_LORA else lora}
        results = (check(partial(folders.model_path, kind), name) for kind, name in names.items())
        return next((error for error in results if error is not True), True)

    @classmethod
    def fingerprint_inputs(cls, checkpoint: str | None = None, lora: str | None = None, **_: Any) -> str:
        """Change when a file does."""
        names = (("checkpoints", checkpoint), ("loras", None if lora == NO_LORA else lora))
        return " ".join(folders.disk_state(folders.model_path(kind, name)) for kind, name in names if name)

    @classmethod
    def execute(cls, checkpoint: str, lora: str, strength: float, label: str, sampler: str, scheduler: str, steps: int,
                cfg: float, precision: str, others: tuple[ComparedModel, ...] = (), lora_name: str = ""
                ) -> io.NodeOutput:
        """Fill in the settings that suit the model, of which only the header is read."""
        from ..atelier.compare.compared_model import ComparedModel, advice_for

        lora_file = lora_name or ("" if lora == NO_LORA else lora)
        if lora_file:
            folders.model_path("loras", lora_file)  # report a missing file now, not in the middle of the comparison
        path = folders.model_path("checkpoints", checkpoint)
        if _BY_MODEL in (sampler, scheduler) or not (steps and cfg):
            advice = advice_for(path, lora_file)
            sampler = advice.sampler if sampler == _BY_MODEL else sampler
            scheduler = advice.scheduler if scheduler == _BY_MODEL else scheduler
            steps, cfg = steps or advice.steps, cfg or advice.cfg
        model = ComparedModel(checkpoint=checkpoint, sampler=sampler, scheduler=scheduler, steps=steps, cfg=cfg,
                              lora=lora_file, strength=strength, precision=precision, label=label)
        return io.NodeOutput((*others, model))
