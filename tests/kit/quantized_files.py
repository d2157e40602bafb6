"""A small Krea 2 file, which the host's loader knows by its shapes, with weights quantised in the host's
formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

FORMATS = ("float8_e4m3fn", "int8_tensorwise", "mxfp8", "nvfp4")
"""The host's names (`QUANT_ALGOS`)."""

TEXT_WIDTH = 80
"""Of a multiple of the 20 heads that the host takes for granted."""
_SHAPE = {"image_model": "krea2", "features": 256, "tdim": 256, "txtdim": TEXT_WIDTH, "heads": 2, "kvheads": 1,
          "multiplier": 4, "layers": 2, "patch": 2, "channels": 16, "txtlayers": 1, "txtheads": 20, "txtkvheads": 20}


def krea2_file(folder: Path, quantization: str = "") -> Path:
    """The file; with a quantisation, the linear layers of its blocks are stored in that format."""
    import comfy.supported_models
    from comfy.quant_ops import QUANT_ALGOS, QuantizedTensor

    made = comfy.supported_models.Krea2(dict(_SHAPE))
    made.set_inference_dtype(torch.float32, None)
    network = made.get_model({}, "").diffusion_model
    torch.manual_seed(0)
    state: dict[str, Tensor] = {}
    for name, parameter in sorted(network.state_dict().items()):
        values = (torch.randn(parameter.shape) * parameter.shape[-1] ** -0.5 if parameter.dim() > 1
                  else torch.randn(parameter.shape) * 0.1 + (0.0 if "bias" in name else 0.5))
        if quantization and name.startswith("blocks.") and name.endswith(".weight") and values.dim() == 2:
            layout = QUANT_ALGOS[quantization]["comfy_tensor_layout"]
            stored = QuantizedTensor.from_float(values.bfloat16(), layout, scale="recalculate")
            prefix = name.removesuffix("weight")
            state |= {f"{name}{suffix}": tensor for suffix, tensor in stored.state_dict("").items()}
            state[f"{prefix}comfy_quant"] = torch.tensor(list(json.dumps({"format": quantization}).encode()),
                                                         dtype=torch.uint8)
        else:
            state[name] = values.bfloat16()
    path = folder / f"krea2 {quantization or 'bf16'}.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    return path


def load_file_in_host(path: Path) -> Any:
    """As core's Load Diffusion Model does."""
    import comfy.sd

    return comfy.sd.load_diffusion_model(str(path))
