"""Nodes that compare models. The pictures are made by the host's own loaders and samplers, one model after another."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from ..atelier.errors import AtelierError
from . import host, sockets
from .checks import verdict
from .measuring import computed_with
from .numbers import arrows

if TYPE_CHECKING:
    from ..atelier.compare.compared_model import ComparedModel

BY_MODEL, NO_LORA, NO_SCORE = "by the model", "none", "none"
FOLDER = "comparisons"
"""Below the pack's work folder: one picture and its measurements for each key."""


class ModelToCompare(io.ComfyNode):
    """One column of a comparison."""

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
                io.Combo.Input("checkpoint", options=host.model_names("checkpoints"),
                               tooltip="A file in models/checkpoints."),
                io.Combo.Input("lora", options=[NO_LORA, *host.model_names("loras")], default=NO_LORA,
                               tooltip="A file in models/loras, or none."),
                io.Float.Input("strength", default=1.0, min=-10, max=10, step=0.05,
                               tooltip="Strength of the LoRA, on model and text encoder."),
                io.String.Input("label", default="", tooltip="Its name in grid and table. Empty: the files' names."),
                io.Combo.Input("sampler", options=[BY_MODEL, *host.sampler_names()], default=BY_MODEL, advanced=True,
                               tooltip="By the model: what suits its family, and Turbo and Lightning by their names."),
                io.Combo.Input("scheduler", options=[BY_MODEL, *host.scheduler_names()], default=BY_MODEL,
                               advanced=True, tooltip="How noise levels are spaced."),
                io.Int.Input("steps", default=0, min=0, max=10_000, advanced=True,
                             tooltip="Sampling steps. 0: by the model."),
                io.Float.Input("cfg", default=0.0, min=0, max=100, step=0.01, advanced=True,
                               extra_dict=arrows(0.5),
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
        """Say before the run that a file is missing."""
        named = {"checkpoints": checkpoint, "loras": None if lora == NO_LORA else lora}
        verdicts = (verdict(partial(host.model_path, kind), name) for kind, name in named.items())
        return next((found for found in verdicts if found is not True), True)

    @classmethod
    def fingerprint_inputs(cls, checkpoint: str | None = None, lora: str | None = None, **_: Any) -> str:
        """Change when a file does."""
        named = (("checkpoints", checkpoint), ("loras", None if lora == NO_LORA else lora))
        return " ".join(host.disk_state(host.model_path(kind, name)) for kind, name in named if name)

    @classmethod
    def execute(cls, checkpoint: str, lora: str, strength: float, label: str, sampler: str, scheduler: str, steps: int,
                cfg: float, precision: str, others: tuple[ComparedModel, ...] = (), lora_name: str = ""
                ) -> io.NodeOutput:
        """Fill in what suits the model; only its header is read."""
        from ..atelier.compare.compared_model import ComparedModel, advice_for

        named = lora_name or ("" if lora == NO_LORA else lora)
        if named:
            host.model_path("loras", named)  # rather than in the middle of the comparison
        path = host.model_path("checkpoints", checkpoint)
        if BY_MODEL in (sampler, scheduler) or not (steps and cfg):
            advice = advice_for(path, named)
            sampler = advice.sampler if sampler == BY_MODEL else sampler
            scheduler = advice.scheduler if scheduler == BY_MODEL else scheduler
            steps, cfg = steps or advice.steps, cfg or advice.cfg
        made = ComparedModel(checkpoint=checkpoint, sampler=sampler, scheduler=scheduler, steps=steps, cfg=cfg,
                             lora=named, strength=strength, precision=precision, label=label)
        return io.NodeOutput((*others, made))


class CompareModels(io.ComfyNode):
    """Models × prompts × seeds."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierCompareModels",
            display_name="Compare Models",
            category="Atelier/compare",
            description="Draws the same prompts and seeds with several models, one model after another, and ranks "
                        "them by CLIP score, telling differences from noise. A run that was cut short goes on with "
                        "the pictures it has.",
            search_aliases=["xy plot", "benchmark", "clip score", "model sweep", "grid", "rank"],
            enable_expand=True,
            inputs=[
                sockets.ComparedModels.Input("models", tooltip="From a chain of Model to Compare."),
                io.String.Input("prompts", multiline=True, default="a cat wearing neon-glasses",
                                tooltip="One prompt a line."),
                io.String.Input("negative", multiline=True, default="low quality, blurry",
                                tooltip="The negative prompt of all."),
                io.Int.Input("seed", default=0, min=0, max=2**63 - 1, control_after_generate=False,
                             tooltip="The first seed."),
                io.Int.Input("seeds", default=3, min=1, max=1000,
                             tooltip="How many seeds for each prompt: seed, seed + 1, … Prompts times seeds: to show a "
                                     "difference takes 6 pictures of each of two models, 7 of three or four, 8 of "
                                     "five to seven."),
                io.Int.Input("width", default=512, min=64, max=8192, step=8, tooltip="Width of the pictures."),
                io.Int.Input("height", default=512, min=64, max=8192, step=8, tooltip="Height of the pictures."),
                io.Combo.Input("score_model", options=[NO_SCORE, *host.clip_score_names()], default=NO_SCORE,
                               tooltip="A CLIP model in models/clip_score, or none for pictures and times only."),
                io.Int.Input("cell", default=256, min=0, max=4096, step=8, advanced=True,
                             tooltip="Longest side of the grid's pictures in pixels. 0: their own size."),
            ],
            outputs=[
                io.Image.Output(display_name="grid", tooltip="One column a model, one row a prompt and seed."),
                io.Image.Output(display_name="chart", tooltip="Mean scores as bars; seconds without scores."),
                io.String.Output(display_name="table", tooltip="Ranking, times, memory, means by prompt."),
                io.String.Output(display_name="csv", tooltip="One line a picture."),
                io.Image.Output(display_name="pictures", tooltip="All pictures: by model, then prompt, then seed."),
            ],
        )

    @classmethod
    def validate_inputs(cls, score_model: str | None = None) -> bool | str:
        """Say before the run that the CLIP model is missing."""
        return score_model == NO_SCORE or verdict(host.clip_score_path, score_model)

    @classmethod
    def fingerprint_inputs(cls, score_model: str | None = None, **_: Any) -> str:
        """Change when the CLIP model's files do."""
        named = score_model not in (None, NO_SCORE)
        return host.disk_state(host.clip_score_path(score_model)) if named and score_model else ""

    @classmethod
    def execute(cls, models: tuple[ComparedModel, ...], prompts: str, negative: str, seed: int, seeds: int, width: int,
                height: int, score_model: str, cell: int) -> io.NodeOutput:
        """Ask the host for the pictures that are missing, then for the result."""
        from ..atelier.compare.compared_model import distinct

        if score_model != NO_SCORE:
            host.clip_score_path(score_model)  # rather than when all is drawn
        texts = tuple(dict.fromkeys(line.strip() for line in prompts.splitlines() if line.strip()))
        if not texts:
            raise AtelierError("There are no prompts to compare with.", "Write at least one line.")
        job = _Job(texts, negative, tuple(range(seed, seed + seeds)), (width, height))
        states = [_states(model) for model in models]
        keys = {(m, p, s): model.key(text, negative, s, job.size, states[m]) for m, model in enumerate(models)
                for p, text in enumerate(texts) for s in job.seeds}
        graph = host.graph_builder()
        last = _pictures(graph, models, job, keys)
        plan = {"models": distinct([model.name for model in models]), "prompts": texts, "seeds": job.seeds,
                "shots": [[*place, key] for place, key in keys.items()]}
        result = graph.node("AtelierComparisonResult", plan=json.dumps(plan), score_model=score_model, cell=cell,
                            **({"after": last} if last else {}))
        return io.NodeOutput(*(result.out(slot) for slot in range(5)), expand=graph.finalize())


@dataclass(frozen=True)
class _Job:
    prompts: tuple[str, ...]
    negative: str
    seeds: tuple[int, ...]
    size: tuple[int, int]


def _states(model: ComparedModel) -> list[str]:
    """What changes when the model's files do, or what computes them."""
    files = [("checkpoints", model.checkpoint), *([("loras", model.lora)] if model.tuned else [])]
    return [*(host.disk_state(host.model_path(kind, name)) for kind, name in files), computed_with()]


def _pictures(graph: Any, models: tuple[ComparedModel, ...], job: _Job, keys: dict[tuple[int, int, int], str]) -> Any:
    """Add the host's nodes for all pictures that are not there yet; returns the link that the last one gives.

    Each picture waits for the one before it, each model's loader for the last picture of the model before; so one
    model is at work at a time.
    """
    folder = host.work_folder(FOLDER)
    there = {key for key in keys.values() if (folder / f"{key}.png").is_file()}
    loaders: dict[str, Any] = {}
    last: Any = None
    for m, model in enumerate(models):
        missing = [(p, s) for p in range(len(job.prompts)) for s in job.seeds if keys[m, p, s] not in there]
        if not missing:
            continue
        there |= {keys[m, p, s] for p, s in missing}  # models may be the same but for their labels
        if model.checkpoint not in loaders:
            gate = graph.node("AtelierComparisonGate", value=model.checkpoint, **({"after": last} if last else {}))
            loaders[model.checkpoint] = graph.node("CheckpointLoaderSimple", ckpt_name=gate.out(0))
        load = loaders[model.checkpoint]
        unet, clip = _with_lora(graph, model, load)
        negative = graph.node("CLIPTextEncode", clip=clip, text=job.negative).out(0)
        empty = graph.node("EmptyLatentImage", width=job.size[0], height=job.size[1], batch_size=1)
        positives = {p: graph.node("CLIPTextEncode", clip=clip, text=job.prompts[p]).out(0)
                     for p in dict.fromkeys(p for p, _ in missing)}
        for p, seed in missing:
            first = (p, seed) == missing[0]
            # The clock starts when everything else is ready.
            start = graph.node("AtelierComparisonGate", value=seed, model=unet, positive=positives[p],
                               negative=negative, alone=first, **({"after": last} if last else {}))
            latent = graph.node("KSampler", model=unet, seed=start.out(0), steps=model.steps, cfg=model.cfg,
                                sampler_name=model.sampler, scheduler=model.scheduler, positive=positives[p],
                                negative=negative, latent_image=empty.out(0), denoise=1.0)
            image = graph.node("VAEDecode", samples=latent.out(0), vae=load.out(2))
            last = graph.node("AtelierComparisonPicture", image=image.out(0), started=start.out(1),
                              key=keys[m, p, seed], loading=first).out(0)
    return last


def _with_lora(graph: Any, model: ComparedModel, load: Any) -> tuple[Any, Any]:
    """Links to the UNet and the text encoder of a model."""
    unet, clip = load.out(0), load.out(1)
    if model.tuned:
        patched = graph.node("LoraLoader", model=unet, clip=clip, lora_name=model.lora, strength_model=model.strength,
                             strength_clip=model.strength)
        unet, clip = patched.out(0), patched.out(1)
    if model.precision != "default":
        unet = graph.node("ModelComputeDtype", model=unet, dtype=model.precision).out(0)
    return unet, clip


NODES: list[type[io.ComfyNode]] = [ModelToCompare, CompareModels]
"""The parts that Compare Models expands into stand in compare_parts."""
