"""Random-weight Stable Diffusion checkpoints in the original (LDM) layout, made on the fly.

The tensor names and shapes (`kit.ldm_shapes`) come from the original architectures and owe nothing to
`atelier.models`, so that the converters are tested against something independent. Weights are scaled by their
fan-in, so that pictures vary and nothing saturates.

    write_sd1(tmp_path / "model.safetensors")                  # the smallest that the host detects and samples, 212 MB
    write_sd1(tmp_path / "model.safetensors", shape="tiny")    # 6 MB, for tests that do not need the host
"""

from __future__ import annotations

import functools
import json
import math
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import torch
from kit.checkpoint_sized import CHANNELS, LAYERS
from kit.ldm_shapes import (
    Shapes,
    TextShape,
    UNetShape,
    VaeShape,
    clip_shapes,
    open_clip_shapes,
    prefixed,
    unet_shapes,
    vae_shapes,
)


@dataclass(frozen=True)
class Shape:
    unet: UNetShape
    vae: VaeShape
    text: TextShape
    """The only text encoder, or SDXL's first."""
    text2: TextShape | None = None
    """SDXL's second text encoder."""


TINY_UNET = UNetShape(channels=32, mult=(1, 2), res_blocks=1, depths=(1, 0), context=32)
TINY_VAE = VaeShape(channels=32, mult=(1, 1, 1, 1), res_blocks=1)
TINY_TEXT = TextShape(width=32, layers=2)
FULL_SD1 = Shape(UNetShape(), VaeShape(), TextShape())
# Of a size that the host only builds where `kit.checkpoint_sized` tells it to.
_SMALL_VAE, _SHALLOW_L = VaeShape(CHANNELS), TextShape(layers=LAYERS)
_SHALLOW_H, _SHALLOW_G = TextShape(1024, LAYERS), TextShape(1280, LAYERS, 1280)
_ONE_LEVEL = UNetShape(mult=(1,), res_blocks=1, depths=(1,), middle_depth=None)
SD1_SHAPES: dict[str, Shape] = {
    # Not for the host, which insists on width 320.
    "tiny": Shape(TINY_UNET, TINY_VAE, TINY_TEXT),
    "small": Shape(_ONE_LEVEL, _SMALL_VAE, _SHALLOW_L),
    "full": FULL_SD1,
}

FULL_SD2 = Shape(UNetShape(context=1024, linear=True), VaeShape(), TextShape(1024, 24))
SD2_SHAPES = {
    "tiny": Shape(replace(TINY_UNET, linear=True), TINY_VAE, replace(TINY_TEXT, layers=3)),
    # Not for the host either; all blocks of the full UNet are there.
    "four_level": Shape(UNetShape(channels=32, mult=(1, 1, 1, 1), context=32, linear=True), TINY_VAE,
                        replace(TINY_TEXT, layers=3)),
    "small": Shape(replace(_ONE_LEVEL, context=1024, linear=True), _SMALL_VAE, _SHALLOW_H),
    "full": FULL_SD2,
}

FULL_X4 = Shape(UNetShape(channels=256, mult=(1, 2, 2, 4), depths=(0, 1, 1, 1), context=1024, in_channels=7,
                          linear=True, classes=1000, text_only=(1, 2)), VaeShape(mult=(1, 2, 4)), TextShape(1024, 24))
X4_SHAPES = {
    "tiny": Shape(replace(FULL_X4.unet, channels=32, mult=(1, 2, 2), res_blocks=1, depths=(0, 1, 1), context=48,
                          text_only=(1,)),
                  VaeShape(channels=32, mult=(1, 1, 1), res_blocks=1), TextShape(width=48, layers=3)),
    "small": Shape(replace(FULL_X4.unet, mult=(1, 1, 1, 1)), replace(FULL_X4.vae, channels=CHANNELS), _SHALLOW_H),
    "full": FULL_X4,
}

FULL_SDXL = Shape(UNetShape(mult=(1, 2, 4), depths=(0, 2, 10), middle_depth=10, context=2048, linear=True, vector=2816),
                  VaeShape(), TextShape(), TextShape(1280, 32, 1280))
_NARROW_XL = replace(FULL_SDXL.unet, mult=(1, 1, 1))
SDXL_SHAPES = {
    "tiny": Shape(UNetShape(channels=32, mult=(1, 2), res_blocks=1, depths=(0, 2), middle_depth=2, context=32 + 48,
                            linear=True, vector=64 + 6 * 256), TINY_VAE, TINY_TEXT, TextShape(48, 2, 64)),
    # The host knows it as a relative of SDXL (Vega), with a fifth of the transformers.
    "small": Shape(replace(_NARROW_XL, depths=(0, 1, 2), middle_depth=2), _SMALL_VAE, _SHALLOW_L, _SHALLOW_G),
    "narrow": replace(FULL_SDXL, unet=_NARROW_XL),
    "full": FULL_SDXL,
}

FULL_REFINER = Shape(UNetShape(channels=384, depths=(0, 4, 4, 0), middle_depth=4, context=1280, linear=True,
                               vector=2560), VaeShape(), TextShape(1280, 32, 1280))
REFINER_SHAPES = {
    "tiny": Shape(UNetShape(channels=32, mult=(1, 2), res_blocks=1, depths=(2, 0), middle_depth=2, context=48,
                            linear=True, vector=48 + 5 * 256), TINY_VAE, TextShape(48, 2, 48)),
    "small": Shape(replace(FULL_REFINER.unet, mult=(1, 1, 1, 1)), _SMALL_VAE, _SHALLOW_G),
    "full": FULL_REFINER,
}


def write_sd1(path: Path, shape: str = "small", dtype: str = "float16", seed: int = 0, *, in_channels: int = 4,
              ema: bool = False) -> Path:
    """Write a Stable Diffusion 1.x checkpoint; `.safetensors`, or `.ckpt` by the path's ending.

    Args:
        shape: A key of `SD1_SHAPES`. The host detects all but "tiny".
        dtype: "float16", "bfloat16" or "float32".
        in_channels: 9 makes an inpainting model.
        ema: Also write a second, different UNet under EMA keys, and one optimiser-like leftover.
    """
    parts = SD1_SHAPES[shape]
    tensors = [*_unet_and_vae(parts, in_channels),
               *prefixed("cond_stage_model.transformer.text_model.", clip_shapes(parts.text))]
    if ema:
        tensors += [("model_ema." + name.removeprefix("model.").replace(".", ""), size) for name, size in tensors
                    if name.startswith("model.")]
    extra = {"cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)[None]}
    if ema:
        extra["model_ema.num_updates"] = torch.tensor(7, dtype=torch.int32)
        extra["alphas_cumprod"] = torch.linspace(0.99, 0.01, 1000)
    return write(path, tensors, dtype=dtype, seed=seed, extra=extra)


def write_sd2(path: Path, shape: str = "small", dtype: str = "float16", seed: int = 0, *, in_channels: int = 4,
              v_prediction: bool = False) -> Path:
    """Write a Stable Diffusion 2.x checkpoint; sd-turbo is one too. The host detects all shapes but "tiny".

    `v_prediction` does not change the meaning of random weights; it spreads the one bias that the host goes by.
    """
    parts = SD2_SHAPES[shape]
    tensors = [*_unet_and_vae(parts, in_channels), *prefixed("cond_stage_model.model.", open_clip_shapes(parts.text))]
    probe = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias"
    sizes = dict(tensors)
    extra = {"cond_stage_model.model.logit_scale": torch.tensor(4.6, dtype=getattr(torch, dtype))}
    if probe in sizes:
        spread = torch.randn(sizes[probe], generator=torch.Generator().manual_seed(seed))
        extra[probe] = (spread * (0.2 if v_prediction else 0.05)).to(getattr(torch, dtype))
    return write(path, [item for item in tensors if item[0] not in extra], dtype=dtype, seed=seed, extra=extra)


def write_x4_upscaler(path: Path, shape: str = "tiny", dtype: str = "float16", seed: int = 0) -> Path:
    """Write a Stable Diffusion x4 upscaler checkpoint."""
    parts = X4_SHAPES[shape]
    return write(path, [*_unet_and_vae(parts, 7), *prefixed("cond_stage_model.model.", open_clip_shapes(parts.text))],
                 dtype=dtype, seed=seed)


def write_sdxl(path: Path, shape: str = "small", dtype: str = "float16", seed: int = 0, *, in_channels: int = 4,
               v_prediction: bool = False, zero_snr: bool = False) -> Path:
    """Write a Stable Diffusion XL checkpoint; Turbo and Lightning are no different. The host detects all but
    "tiny"."""
    parts = SDXL_SHAPES[shape]
    assert parts.text2 is not None
    tensors = [*_unet_and_vae(parts, in_channels),
               *prefixed("conditioner.embedders.0.transformer.text_model.", clip_shapes(parts.text)),
               *prefixed("conditioner.embedders.1.model.", open_clip_shapes(parts.text2))]
    extra = {"conditioner.embedders.0.transformer.text_model.embeddings.position_ids": torch.arange(77)[None],
             "conditioner.embedders.1.model.logit_scale": torch.tensor(4.6, dtype=getattr(torch, dtype))}
    extra |= {name: torch.zeros(0) for name, wanted in (("v_pred", v_prediction), ("ztsnr", zero_snr)) if wanted}
    return write(path, tensors, dtype=dtype, seed=seed, extra=extra)


def write_sdxl_refiner(path: Path, shape: str = "small", dtype: str = "float16", seed: int = 0) -> Path:
    """Write a Stable Diffusion XL refiner checkpoint."""
    parts = REFINER_SHAPES[shape]
    tensors = [*_unet_and_vae(parts, 4),
               *prefixed("conditioner.embedders.0.model.", open_clip_shapes(parts.text))]
    return write(path, tensors, dtype=dtype, seed=seed)


def write_bare_unet(path: Path, shape: str = "tiny", dtype: str = "float16", seed: int = 0) -> Path:
    """Write an SDXL UNet alone, in the original layout without any prefix."""
    return write(path, unet_shapes(SDXL_SHAPES[shape].unet), dtype=dtype, seed=seed)


WRITERS: dict[str, Callable[..., Path]] = {
    "sd1": write_sd1, "sd2": write_sd2, "x4-upscaler": write_x4_upscaler, "sdxl": write_sdxl,
    "sdxl-refiner": write_sdxl_refiner,
    "sd1-inpainting": functools.partial(write_sd1, in_channels=9),
    "sd2-inpainting": functools.partial(write_sd2, in_channels=9),
    "sdxl-inpainting": functools.partial(write_sdxl, in_channels=9),
}
"""A writer for each family of `atelier.models.families.FAMILIES`; all know the shape "tiny"."""


def _unet_and_vae(parts: Shape, in_channels: int) -> Shapes:
    yield from prefixed("model.diffusion_model.", unet_shapes(replace(parts.unet, in_channels=in_channels)))
    yield from prefixed("first_stage_model.", vae_shapes(parts.vae))


# --- values and files ---------------------------------------------------------------------------------------------

_SAFETENSORS_NAMES = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32", torch.int64: "I64",
                      torch.int32: "I32"}


def random_values(dtype: torch.dtype, seed: int) -> Callable[[str, tuple[int, ...]], torch.Tensor]:
    """A function that gives each named tensor its values, much faster than drawing each number anew.

    Slices of one pool of normal numbers are used, each from another place; a pool of prime length keeps rows of a
    matrix apart.
    """
    pool = torch.randn(1_299_709, generator=torch.Generator().manual_seed(seed))
    pool = torch.cat([pool, pool])
    half = len(pool) // 2
    place = 0

    @functools.cache
    def scaled(scale: float, shift: float) -> torch.Tensor:
        return (pool * scale + shift).to(dtype)

    def values(name: str, shape: tuple[int, ...]) -> torch.Tensor:
        nonlocal place
        count = math.prod(shape)
        source = scaled(_scale(name, shape), 1.0 if _is_norm(name, shape) else 0.0)
        slices = []
        for start in range(0, count, half):
            size = min(half, count - start)
            slices.append(source[place:place + size])
            place = (place + size + 7919) % half
        return torch.cat(slices).reshape(shape)

    return values


def write(path: Path, tensors: Iterable[tuple[str, tuple[int, ...]]], *, dtype: str = "float16", seed: int = 0,
          extra: Mapping[str, torch.Tensor] | None = None, metadata: Mapping[str, str] | None = None) -> Path:
    """Write random tensors of these names and shapes, and `extra` ones as they are, streaming."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = getattr(torch, dtype)
    values = random_values(kind, seed)
    extra = extra or {}
    if path.suffix in (".ckpt", ".bin"):
        state = {name: values(name, size) for name, size in tensors} | dict(extra)
        torch.save({"state_dict": state, "global_step": 1000}, path)
        return path
    tensors = list(tensors)
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    exact = [(name, tuple(tensor.shape), tensor.dtype) for name, tensor in extra.items()]
    for name, size, of in [*((name, size, kind) for name, size in tensors), *exact]:
        begin, end = end, end + math.prod(size) * of.itemsize
        header[name] = {"dtype": _SAFETENSORS_NAMES[of], "shape": list(size), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, size in tensors:
            _put(file, values(name, size))
        for tensor in extra.values():
            _put(file, tensor)
    return path


def _put(file: IO[bytes], tensor: torch.Tensor) -> None:
    file.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)


def _is_norm(name: str, shape: tuple[int, ...]) -> bool:
    return len(shape) == 1 and name.endswith("weight")


def _scale(name: str, shape: tuple[int, ...]) -> float:
    if len(shape) < 2:
        return 0.1
    if "embedding" in name:
        return 0.5
    return 1 / math.sqrt(math.prod(shape[1:]))
