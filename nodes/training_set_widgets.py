"""Widgets that the nodes for training sets share."""

from __future__ import annotations

from comfy_api.latest import io

from ..atelier.dataset.folder import FolderOptions
from ..atelier.dataset.types import Crop, Resolution
from .widgets import arrow_step

_FOLDER = FolderOptions()

_SIZE = Resolution()


def trigger_input() -> io.Input:
    """The trigger word."""
    return io.String.Input("trigger", default=_FOLDER.trigger,
                           tooltip="A rare word that will stand for what is learnt. Put in front of captions that lack "
                                   "it.")


def size_inputs() -> list[io.Input]:
    """Resolution and crop mode."""
    return [
        io.Int.Input("resolution", default=_SIZE.size, min=64, max=4096, step=8,
                     tooltip="Pixels of a side. 512 suits SD1.x, 768 SD2.x, 1024 SDXL."),
        io.Combo.Input("crop", options=Crop, default=_SIZE.crop,
                       tooltip="How pictures get that size: the centre, the window with most detail (focal), bars at "
                               "the sides that do not count (pad), or sizes of equal area and like shape (bucket)."),
    ]


def use_inputs() -> list[io.Input]:
    """Repeats and flip: how the pictures are used in an epoch."""
    return [
        io.Int.Input("repeats", default=_FOLDER.repeats, min=1, max=10_000,
                     tooltip="How often each picture is used in one epoch."),
        io.Boolean.Input("flip", default=_FOLDER.flip,
                         tooltip="Use pictures mirrored half of the time. Not for faces, text or anything one-sided."),
    ]


def bucket_inputs() -> list[io.Input]:
    """Step and longest aspect ratio of buckets."""
    return [
        io.Int.Input("bucket_step", default=_SIZE.bucket_step, min=8, max=512, step=8, advanced=True,
                     tooltip="Sides of buckets are multiples of this."),
        io.Float.Input("max_aspect", default=_SIZE.max_aspect, min=1, max=8, step=0.01, advanced=True,
                       extra_dict=arrow_step(0.25),
                       tooltip="Longest side ratio of a bucket; longer pictures are cropped to it."),
    ]
