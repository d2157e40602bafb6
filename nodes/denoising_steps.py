"""Denoising Steps: sampling with a picture of each step."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ..atelier.errors import AtelierError
from ..atelier.files import file_name
from .host import folders
from .host.images import from_image_tensor, to_image_tensor
from .host.progress import HostProgress


class DenoisingSteps(io.ComfyNode):
    """Samples, and shows what the sampler does step by step."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierDenoisingSteps",
            display_name="Denoising Steps",
            category="Atelier/sampling",
            description="Samples as core's SamplerCustomAdvanced does, to the same picture, and shows the steps: what "
                        "the model takes the clean picture to be, the noisy latent, and what guidance adds. Any "
                        "sampler, text to image and image to image.",
            search_aliases=["steps", "denoise", "sampling steps", "progress", "animation", "diffusion loop", "learn"],
            is_output_node=True,
            inputs=[
                io.Noise.Input("noise", tooltip="From RandomNoise."),
                io.Guider.Input("guider", tooltip="From CFGGuider, BasicGuider or another guider."),
                io.Sampler.Input("sampler", tooltip="From KSamplerSelect or any sampler node."),
                io.Sigmas.Input("sigmas", tooltip="From BasicScheduler or any scheduler node."),
                io.Latent.Input("latent_image", tooltip="An empty latent, or an encoded picture for image to image. Of "
                                                        "a batch the first is shown."),
                io.Vae.Input("vae", tooltip="Decodes the steps."),
                io.Int.Input("every", default=0, min=0, max=1000,
                             tooltip="Show every n-th step and the last. 0: about eight, evenly spread."),
                io.Combo.Input("rows", options=["all", "prediction", "prediction and noisy"], default="all",
                               tooltip="What the strip shows: the predicted clean picture, the noisy latent as the "
                                       "UNet sees it, and where guidance changes most (bright)."),
                io.Int.Input("cell", default=256, min=0, max=2048, step=8, advanced=True,
                             tooltip="Longest side of the strip's pictures in pixels. 0: their own size."),
                io.Int.Input("milliseconds", default=250, min=10, max=10_000, advanced=True,
                             tooltip="How long each step stands in the animation."),
                io.String.Input("animation", default="atelier/denoising", advanced=True,
                                tooltip="Name of the animated WebP in the output folder, without ending; it gets a "
                                        "number. Empty: none is written."),
            ],
            outputs=[
                io.Latent.Output(display_name="output", tooltip="As SamplerCustomAdvanced gives it."),
                io.Latent.Output(display_name="denoised output", tooltip="As SamplerCustomAdvanced gives it."),
                io.Image.Output(display_name="strip", tooltip="All shown steps side by side, with labels."),
                io.Image.Output(display_name="frames", tooltip="The predicted pictures of the shown steps, full size; "
                                                               "the last is the finished picture."),
            ],
        )

    @classmethod
    def execute(cls, noise: Any, guider: Any, sampler: Any, sigmas: Any, latent_image: Any, vae: Any, every: int,
                rows: str, cell: int, milliseconds: int, animation: str) -> io.NodeOutput:
        """Sample with a recording guider, then decode the recorded steps."""
        import torch

        from ..atelier.explain.denoising import ROWS, chosen_steps, draw_strip, save_animation
        from .host.step_recorder import sample

        total = len(sigmas) - 1
        if total < 1:
            raise AtelierError("There are no steps: the list of sigmas is empty.",
                               "Raise steps or denoise in the scheduler.")
        name = file_name(animation) if animation.strip() else ""
        done, denoised, recorded = sample(noise, guider, sampler, sigmas, latent_image, chosen_steps(total, every))
        shown_rows = tuple(ROWS)[:{"all": 3, "prediction": 1, "prediction and noisy": 2}[rows]]
        steps, predictions = _decode(vae, recorded, shown_rows)
        result = _first_picture(vae.decode(done["samples"][:1]))
        finished = from_image_tensor(result)[0]
        strip = to_image_tensor([draw_strip(steps, finished, rows=shown_rows, cell=cell)])
        shown = ui.PreviewImage(strip, cls=cls).as_dict()
        if name:
            path, subfolder = folders.next_output_file(name, ".webp")
            save_animation(path, steps, finished, milliseconds)
            animated = ui.SavedResult(path.name, subfolder, io.FolderType.output)
            shown = {"images": [*shown["images"], animated], "animated": (False, True)}
        return io.NodeOutput(done, denoised, strip, torch.cat([*predictions, result]), ui=shown)


def _decode(vae: Any, recorded: list[Any], rows: tuple[str, ...]) -> tuple[list[Any], list[Any]]:
    """Decode the recorded latents: steps with PIL pictures, and the predictions as IMAGE tensors of one picture."""
    from ..atelier.explain.denoising import Step

    progress = HostProgress()
    progress.phase("decoding", len(recorded))
    steps, predictions = [], []
    for count, latents in enumerate(recorded, 1):
        progress.check()
        predictions.append(_first_picture(vae.decode(latents.prediction)))
        noisy = _first_picture(vae.decode(latents.noisy)) if "noisy" in rows else None
        guidance = None
        if latents.guidance is not None and "guidance" in rows:
            norm = latents.guidance.norm(dim=1)
            guidance = norm.reshape(-1, *norm.shape[-2:])[0].numpy()
        steps.append(Step(number=latents.index + 1, sigma=latents.sigma, timestep=latents.timestep,
                          prediction=from_image_tensor(predictions[-1])[0],
                          noisy=from_image_tensor(noisy)[0] if noisy is not None else None, guidance=guidance))
        progress.advance(count)
    return steps, predictions


def _first_picture(images: Any) -> Any:
    """The first picture `[1, H, W, C]` of a VAE's output `[B, H, W, C]`, or `[B, T, H, W, C]` for video."""
    return images.reshape(-1, *images.shape[-3:])[:1].float().cpu()
