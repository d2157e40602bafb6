"""The node that opens up the denoising loop."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from ..atelier.errors import AtelierError
from ..atelier.files import file_name
from . import host


class DenoisingSteps(io.ComfyNode):
    """What a sampler does, step by step."""

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
        """Sample with a recorder in the guider, then decode what was kept."""
        import torch

        from ..atelier.explain.denoising import ROWS, chosen_steps, draw_strip, save_animation
        from .recorder import sample

        total = len(sigmas) - 1
        if total < 1:
            raise AtelierError("There are no steps: the list of sigmas is empty.",
                               "Raise steps or denoise in the scheduler.")
        name = file_name(animation) if animation.strip() else ""
        done, denoised, recorded = sample(noise, guider, sampler, sigmas, latent_image, chosen_steps(total, every))
        wanted = tuple(ROWS)[:{"all": 3, "prediction": 1, "prediction and noisy": 2}[rows]]
        steps, predictions = _decoded(vae, recorded, wanted)
        result = _first_picture(vae.decode(done["samples"][:1]))
        finished = host.from_image_tensor(result)[0]
        strip = host.to_image_tensor([draw_strip(steps, finished, rows=wanted, cell=cell)])
        shown = ui.PreviewImage(strip, cls=cls).as_dict()
        if name:
            path, subfolder = host.next_output_file(name, ".webp")
            save_animation(path, steps, finished, milliseconds)
            moving = ui.SavedResult(path.name, subfolder, io.FolderType.output)
            shown = {"images": [*shown["images"], moving], "animated": (False, True)}
        return io.NodeOutput(done, denoised, strip, torch.cat([*predictions, result]), ui=shown)


def _decoded(vae: Any, recorded: list[Any], rows: tuple[str, ...]) -> tuple[list[Any], list[Any]]:
    """The recorded latents as pictures, and the predictions as IMAGE tensors of one picture each."""
    from ..atelier.explain.denoising import Step

    progress = host.HostProgress()
    progress.phase("decoding", len(recorded))
    steps, predictions = [], []
    for count, each in enumerate(recorded, 1):
        progress.check()
        predictions.append(_first_picture(vae.decode(each.prediction)))
        noisy = _first_picture(vae.decode(each.noisy)) if "noisy" in rows else None
        guidance = None
        if each.guidance is not None and "guidance" in rows:
            length = each.guidance.norm(dim=1)
            guidance = length.reshape(-1, *length.shape[-2:])[0].numpy()
        steps.append(Step(number=each.index + 1, sigma=each.sigma, timestep=each.timestep,
                          prediction=host.from_image_tensor(predictions[-1])[0],
                          noisy=host.from_image_tensor(noisy)[0] if noisy is not None else None, guidance=guidance))
        progress.advance(count)
    return steps, predictions


def _first_picture(images: Any) -> Any:
    """The first picture `[1, H, W, C]` of what a VAE gives, `[B, H, W, C]` or `[B, T, H, W, C]` for video."""
    return images.reshape(-1, *images.shape[-3:])[:1].float().cpu()


NODES: list[type[io.ComfyNode]] = [DenoisingSteps]
