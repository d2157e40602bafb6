"""Encode a training set, and count what is loaded and computed for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from atelier.dataset.encode import encode
from atelier.dataset.prepare import prepare
from atelier.dataset.types import Crop, Resolution, TrainingSet
from atelier.models import load
from atelier.models.handle import DiffusersModel
from atelier.progress import Progress

SIZES = [(96, 64), (64, 96), (80, 80), (96, 64), (70, 64)]


BUCKETS = Resolution(64, Crop.BUCKET, bucket_step=8)


def encoded(data: TrainingSet, model: DiffusersModel, cache: Path, progress: Progress | None = None, **options: Any):
    return encode(data, model, cache, device="cpu", dtype=torch.float32, batch_size=options.pop("batch_size", 2),
                  progress=progress or Progress(), **options)


class Count:
    """Wraps a loader and counts, or refuses, its calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, refuse: bool = False) -> None:
        self.calls, self.refuse, self.real = 0, refuse, getattr(load, name)
        monkeypatch.setattr(load, name, self)

    def __call__(self, *args: object, **kwargs: object) -> object:
        assert not self.refuse, "nothing should be loaded"
        self.calls += 1
        return self.real(*args, **kwargs)


def batches_encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that records the batch size of each VAE forward pass from now on."""
    seen: list[int] = []
    real = load.load_vae

    def watched(*args: object, **kwargs: object):
        vae = real(*args, **kwargs)
        encode_ = vae.encode
        vae.encode = lambda x: (seen.append(len(x)), encode_(x))[1]
        return vae

    monkeypatch.setattr(load, "load_vae", watched)
    return seen


def reference(model: DiffusersModel, data: TrainingSet, index: int, mirrored: bool = False):
    """Mean and deviation by diffusers' own VAE call on the picture's pixels."""
    vae = load.load_vae(model)
    pixels = prepare(data.samples[index], data.resolution).pixels
    pixels = np.ascontiguousarray(pixels[:, ::-1]) if mirrored else pixels
    x = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        posterior = vae.encode(x).latent_dist
    return posterior.mean[0] * vae.config.scaling_factor, posterior.std[0] * vae.config.scaling_factor
