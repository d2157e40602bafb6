"""The host's nodes that Compare Models expands into."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .comparison import FOLDER, ComparisonRequest
from .host import folders

if TYPE_CHECKING:
    from ..atelier.compare.compared_model import ComparedModel


def add_pictures(graph: Any, models: tuple[ComparedModel, ...], request: ComparisonRequest,
                 keys: dict[tuple[int, int, int], str]) -> Any:
    """Add the host's nodes that draw all pictures that do not exist yet.

    Each picture waits for the one before it, and each loader for the last picture of the model before, so that only one
    model works at a time.

    Args:
        graph: The host's graph builder.
        models: The models to compare.
        request: What to draw with each.
        keys: File stem of each picture, by (index of model, index of prompt, seed).

    Returns:
        A link to the output of the last picture; None if no picture is missing.
    """
    folder = folders.work_folder(FOLDER)
    existing = {key for key in keys.values() if (folder / f"{key}.png").is_file()}
    loaders: dict[str, Any] = {}
    last: Any = None
    for m, model in enumerate(models):
        missing = [(p, s) for p in range(len(request.prompts)) for s in request.seeds if keys[m, p, s] not in existing]
        if not missing:
            continue
        existing |= {keys[m, p, s] for p, s in missing}  # models may differ in their labels only
        if model.checkpoint not in loaders:
            gate = graph.node("AtelierComparisonGate", value=model.checkpoint, **({"after": last} if last else {}))
            loaders[model.checkpoint] = graph.node("CheckpointLoaderSimple", ckpt_name=gate.out(0))
        load = loaders[model.checkpoint]
        unet, clip = _patched_outputs(graph, model, load)
        negative = graph.node("CLIPTextEncode", clip=clip, text=request.negative).out(0)
        empty = graph.node("EmptyLatentImage", width=request.size[0], height=request.size[1], batch_size=1)
        positives = {p: graph.node("CLIPTextEncode", clip=clip, text=request.prompts[p]).out(0)
                     for p in dict.fromkeys(p for p, _ in missing)}
        for p, seed in missing:
            first = (p, seed) == missing[0]
            # The clock starts when all inputs of the sampler are ready.
            start = graph.node("AtelierComparisonGate", value=seed, model=unet, positive=positives[p],
                               negative=negative, alone=first, **({"after": last} if last else {}))
            latent = graph.node("KSampler", model=unet, seed=start.out(0), steps=model.steps, cfg=model.cfg,
                                sampler_name=model.sampler, scheduler=model.scheduler, positive=positives[p],
                                negative=negative, latent_image=empty.out(0), denoise=1.0)
            image = graph.node("VAEDecode", samples=latent.out(0), vae=load.out(2))
            last = graph.node("AtelierComparisonPicture", image=image.out(0), started=start.out(1),
                              key=keys[m, p, seed], loading=first).out(0)
    return last


def _patched_outputs(graph: Any, model: ComparedModel, load: Any) -> tuple[Any, Any]:
    """Links to the UNet and the text encoder of a model, with its LoRA and precision."""
    unet, clip = load.out(0), load.out(1)
    if model.tuned:
        patched = graph.node("LoraLoader", model=unet, clip=clip, lora_name=model.lora, strength_model=model.strength,
                             strength_clip=model.strength)
        unet, clip = patched.out(0), patched.out(1)
    if model.precision != "default":
        unet = graph.node("ModelComputeDtype", model=unet, dtype=model.precision).out(0)
    return unet, clip
