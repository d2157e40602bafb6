"""Prior Pictures: the base model draws what it should not forget, before it is trained."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from comfy_api.latest import io, ui

from ..atelier.prior.options import MAX_PICTURES, PriorOptions
from . import sockets
from .host import device, folders
from .host.images import to_image_tensor
from .host.progress import HostProgress
from .widgets import arrow_step

_OPTIONS = PriorOptions()


class PriorPictures(io.ComfyNode):
    """Adds pictures that the base model draws to a training set."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierPriorPictures",
            display_name="Prior Pictures",
            category="Atelier/dataset",
            description="Before training, the model itself draws pictures of what it should not forget, such as dogs "
                        "of all kinds beside your dog. They are trained on too, with the prior_weight of Training "
                        "Options. Pictures that are there already are not drawn again.",
            search_aliases=["regularization images", "class images", "prior preservation", "dreambooth"],
            inputs=[
                sockets.DiffusersModel.Input("model", tooltip="The model that Train LoRA gets: it draws the pictures."),
                sockets.TrainingSet.Input("training_set", tooltip="What is to be learnt; the pictures are drawn in its "
                                                                  "sizes and added to it."),
                io.Int.Input("count", default=_OPTIONS.count, min=1, max=MAX_PICTURES,
                             tooltip="How many pictures. DreamBooth uses 100 to 200; each takes as long as one "
                                     "generated picture."),
                io.String.Input("prompt", default=_OPTIONS.prompt, multiline=True, placeholder="a photo of a dog",
                                tooltip="What they show, one prompt a line, used in turn: your subject's kind, without "
                                        "the trigger. Empty: the captions of the training set without the trigger."),
                io.String.Input("negative", default=_OPTIONS.negative, multiline=True, advanced=True,
                                placeholder="blurry, deformed", tooltip="What the pictures should not show."),
                # No new seed after each run: that would draw all pictures anew, and train anew.
                io.Int.Input("seed", default=_OPTIONS.seed, min=0, max=2**63 - 1, control_after_generate=False,
                             tooltip="Of the first picture; each next one has the next."),
                io.Int.Input("steps", default=_OPTIONS.steps, min=1, max=1000,
                             tooltip="Denoising steps of a picture. 20 suits most models; Turbo and Lightning 1 to 8."),
                io.Float.Input("cfg", default=_OPTIONS.cfg, min=0, max=100, step=0.01, extra_dict=arrow_step(0.5),
                               tooltip="Guidance scale. 7 suits Stable Diffusion; 1 suits distilled models such as "
                                       "FLUX.1 dev, Turbo and Lightning."),
            ],
            outputs=[
                sockets.TrainingSet.Output(display_name="training set", tooltip="For Train LoRA."),
                io.Image.Output(display_name="preview", tooltip="The first drawn pictures with their prompts."),
            ],
        )

    @classmethod
    def execute(cls, model: Any, training_set: Any, count: int, prompt: str, negative: str, seed: int, steps: int,
                cfg: float) -> io.NodeOutput:
        """Draw what is missing, and show a contact sheet."""
        from ..atelier.dataset.preview import contact_sheet
        from ..atelier.models.handle import DiffusersModel
        from ..atelier.prior.draw import DiffusersDrawer, add_prior_pictures
        from ..atelier.train.devices import pick_dtype
        from .host.loaded.prior import HostDrawer

        options = PriorOptions(count=count, prompt=prompt, negative=negative.strip(), seed=seed, steps=steps, cfg=cfg)
        progress, folder, own = HostProgress(), folders.work_folder("prior"), device.torch_device()
        if isinstance(model, DiffusersModel):
            drawer = DiffusersDrawer(model, own, pick_dtype("auto", own))
            data = add_prior_pictures(training_set, options, drawer, folder, progress,
                                      exclusive=device.exclusive_device)
        else:  # the host's own sampler has the host make room
            data = add_prior_pictures(training_set, options, HostDrawer(model), folder, progress)
        drawn = replace(data, samples=data.samples[len(training_set.samples):])
        sheet = to_image_tensor([contact_sheet(drawn)])
        text = f"{len(drawn.samples)} prior pictures beside {len(training_set.samples)} of the training set"
        return io.NodeOutput(data, sheet, ui={**ui.PreviewImage(sheet, cls=cls).as_dict(), "text": (text,)})
