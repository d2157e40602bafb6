"""The host loads scaled float8 as Export Checkpoint writes it, and computes with number times scale."""

from __future__ import annotations

import logging
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from kit.checkpoints import SD1_SHAPES, SDXL_SHAPES, write
from kit.ldm_shapes import prefixed, unet_shapes
from kit.pack import pack_module
from safetensors.torch import load_file, save_file

pytestmark = pytest.mark.host

UNETS = {"sd1": SD1_SHAPES["small"].unet, "sdxl": SDXL_SHAPES["small"].unet}
"""Without text encoders and VAE, which stay float16 and cost most of the time."""


def computed(path: Path, width: int, vector: int | None) -> torch.Tensor:
    """What the host's UNet makes of fixed inputs."""
    import comfy.sd

    stream = torch.Generator().manual_seed(1)
    with torch.inference_mode():
        patcher = comfy.sd.load_checkpoint_guess_config(str(path), output_vae=False, output_clip=False)[0]
        extra = {"y": torch.randn(1, vector, generator=stream)} if vector else {}
        network: Any = patcher.model.diffusion_model
        return network(torch.randn(1, 4, 8, 8, generator=stream), torch.tensor([300.0]),
                       context=torch.randn(1, 77, width, generator=stream), **extra).float()


@pytest.mark.parametrize("family", UNETS)
def test_the_host_computes_with_number_times_scale(family: str, pack: ModuleType, tmp_path: Path,
                                                   caplog: pytest.LogCaptureFixture) -> None:
    convert = pack_module(pack, "atelier.convert")
    shape = UNETS[family]
    source = write(tmp_path / "fp16.safetensors", [*prefixed("model.diffusion_model.", unet_shapes(shape))],
                   dtype="float16", seed=0, extra={})
    scaled, products = tmp_path / "fp8.safetensors", tmp_path / "products.safetensors"
    convert.to_checkpoint(source, scaled, convert.ConvertOptions("fp8"))
    stored = load_file(scaled)
    save_file({name: tensor.float() * stored[name.replace(".weight", ".weight_scale")]
               if tensor.dtype == torch.float8_e4m3fn else tensor.float()
               for name, tensor in stored.items() if not name.endswith(("weight_scale", "comfy_quant"))}, products)
    with caplog.at_level(logging.DEBUG):
        ours = computed(scaled, shape.context, shape.vector)
    assert "Detected mixed precision quantization" in caplog.text
    assert "unexpected" not in caplog.text and "missing" not in caplog.text
    expected, original = (computed(path, shape.context, shape.vector) for path in (products, source))
    assert float((ours - expected).norm() / expected.norm()) < 1e-3
    assert 1e-3 < float((ours - original).norm() / original.norm()) < 0.05
    assert scaled.stat().st_size < source.stat().st_size
