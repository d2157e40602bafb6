"""Store a run's trained weights as the asset that ships (stage `export` of train_demo_model.py)."""

from __future__ import annotations

import demo_unet
import demo_vae
import numpy as np
import torch
from demo_run import Run

from atelier.demo import asset, expand
from atelier.models.keymap import KeyTable
from atelier.models.unet_keys import UNetLayout, unet_table
from atelier.models.vae_keys import vae_table
from atelier.progress import Progress


def export(run: Run) -> None:
    """Write the asset and the hash of what it expands to."""
    unet, vae = demo_unet.load(run.folder).state_dict(), demo_vae.normalised(run).state_dict()
    weights = _original(unet, unet_table(UNetLayout.from_diffusers(unet.keys())), expand.UNET)
    weights |= _original(vae, vae_table(vae.keys()), expand.VAE)
    asset.write(expand.ASSET, weights)
    digest = expand.write(run.folder / expand.FILE_NAME, Progress())
    expand.DIGEST.write_text(digest + "\n", encoding="ascii")
    run.log_now("export", 0, megabytes=expand.ASSET.stat().st_size / 1e6)



def _original(state: dict[str, torch.Tensor], table: KeyTable, prefix: str) -> dict[str, np.ndarray]:
    """Rename diffusers' tensors to the original layout, where some matrices are 1×1 convolutions."""
    renamed = {}
    for name, tensor in state.items():
        match = table.match_diffusers(name)
        assert match is not None, name
        array = np.ascontiguousarray(tensor.numpy())
        renamed[prefix + match.original] = array.reshape(match.original_shape(array.shape))
    return renamed
