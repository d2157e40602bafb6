"""Face restoration models of the architectures that people use, with random weights, in files that the host opens."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file


def write_gfpgan(path: Path) -> Path:
    """GFPGAN in the one size that there is, 87 million numbers, in half precision: 174 MB.

    The noise of each layer counts, as in a trained model, and most of the answer lies between -1 and 1.
    """
    from spandrel.architectures.GFPGAN import GFPGAN  # the host brings it, and tests are collected without one

    torch.manual_seed(0)
    model = GFPGAN()
    state = model.state_dict()
    for name, tensor in state.items():
        if name.endswith(".weight") and tensor.shape == (1,):
            tensor.fill_(0.3)  # of the noise; it starts at 0
        if name.startswith("stylegan_decoder.to_rgb") and name.endswith("modulated_conv.weight"):
            tensor.mul_(0.3)
    return _written(path, state)


def write_restoreformer(path: Path) -> Path:
    """RestoreFormer, as narrow as its normalisation allows."""
    from spandrel.architectures.RestoreFormer import RestoreFormer

    torch.manual_seed(0)
    model = RestoreFormer(n_embed=16, embed_dim=32, ch=32, ch_mult=(1, 1, 1, 1, 1, 1), num_res_blocks=1, z_channels=32)
    return _written(path, model.state_dict())


def write_brightener(path: Path, amount: float) -> Path:
    """A small network (SRVGGNetCompact) that adds a constant: it restores nothing, but shows where it was at work."""
    return _written(path, {
        "body.0.weight": torch.zeros(8, 3, 3, 3), "body.0.bias": torch.zeros(8), "body.1.weight": torch.ones(8),
        "body.2.weight": torch.zeros(8, 8, 3, 3), "body.2.bias": torch.zeros(8), "body.3.weight": torch.ones(8),
        "body.4.weight": torch.zeros(3, 8, 3, 3), "body.4.bias": torch.full((3,), amount)})


def _written(path: Path, state: dict[str, torch.Tensor]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.half().contiguous() for name, tensor in state.items()}, path)
    return path
