"""Count the memory that the x4 upscaler needs for a tile, and write the table of docs/upscaling.md.

    python tools/upscaler_memory.py [--check]

Nothing is measured: UNet and decoder run once without values, and the most bytes that live at one time are counted.
With --check the page is only compared.
"""

from __future__ import annotations

import argparse
import sys
import weakref
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

PAGE = Path(__file__).resolve().parent.parent / "docs" / "upscaling.md"
BEGIN, END = "<!-- computed by tools/upscaler_memory.py -->", "<!-- end -->"
SIDES = (128, 192, 256, 512)
"""Pixels of a tile; the upscaler's latents have as many."""
UNET: dict[str, Any] = {
    "in_channels": 7, "block_out_channels": (256, 512, 512, 1024), "attention_head_dim": 8, "cross_attention_dim": 1024,
    "down_block_types": ("DownBlock2D", *["CrossAttnDownBlock2D"] * 3),
    "up_block_types": (*["CrossAttnUpBlock2D"] * 3, "UpBlock2D"),
    "num_class_embeds": 1000, "use_linear_projection": True, "only_cross_attention": (True, True, True, False)}
VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512), "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3, "layers_per_block": 2}
"""What stabilityai/stable-diffusion-x4-upscaler sets beyond diffusers' defaults."""


class _Live(TorchDispatchMode):
    """Counts the bytes of all live tensors that were created while the mode is active."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.most = self._now = 0
        self._known = {parameter.untyped_storage()._cdata for parameter in model.parameters()}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in self._known:
                storage = tensor.untyped_storage()
                self._known.add(storage._cdata)
                self._now += storage.nbytes()
                self.most = max(self.most, self._now)
                weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        return result

    def _gone(self, storage: int, size: int) -> None:
        self._known.discard(storage)
        self._now -= size


def memory(sides: tuple[int, ...] = SIDES) -> dict[int, tuple[float, float]]:
    """To sample a tile, and to decode it: GB (10⁹ bytes) in half precision, with the weights and guidance's halves."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float16)
    try:
        with FakeTensorMode(), torch.no_grad():
            unet, vae = UNet2DConditionModel(**UNET), AutoencoderKL(**VAE)
            counted = {}
            for side in sides:
                level = torch.zeros(2, dtype=torch.long)
                with _Live(unet) as sampling:
                    unet(torch.zeros(2, 7, side, side), level, torch.zeros(2, 77, 1024), class_labels=level)
                with _Live(vae) as decoding:
                    vae.decode(torch.zeros(1, 4, side, side))
                counted[side] = ((_weights(unet) + sampling.most) / 1e9, (_weights(vae) + decoding.most) / 1e9)
            return counted
    finally:
        torch.set_default_dtype(before)


def _weights(model: torch.nn.Module) -> int:
    return sum(parameter.nbytes for parameter in model.parameters())


def table(counted: dict[int, tuple[float, float]]) -> str:
    """The counts as a Markdown table."""
    rows = [f"| {side} × {side} | {4 * side} × {4 * side} | {sample:.1f} | {decode:.1f} |"
            for side, (sample, decode) in counted.items()]
    return "\n".join(["| tile | becomes | sampling, GB | decoding, GB |", "|---|---|---:|---:|", *rows])


def main() -> int:
    """Write or compare."""
    parser = argparse.ArgumentParser(description="Write the table of docs/upscaling.md.")
    parser.add_argument("--check", action="store_true", help="only say whether the page is what would be written")
    check = parser.parse_args().check
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    new = f"{before}{BEGIN}\n{table(memory())}\n{END}{rest.split(END)[1]}"
    if check:
        print("as computed" if text == new else "run: python tools/upscaler_memory.py")
        return int(text != new)
    PAGE.write_text(new, encoding="utf-8", newline="\n")
    print(PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
