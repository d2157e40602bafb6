"""Run a checkpoint through ComfyUI's own model code, in a process of its own, and bring the numbers home.

The host's modules (`nodes`, `utils`, …) must not leak into the tests, hence the process. Everything runs in float32
on the CPU.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor


def host_forward(models: Sequence[Path], inputs: Mapping[str, Tensor], text: str, work: Path
                 ) -> list[dict[str, Tensor]]:
    """What ComfyUI makes of the inputs with each model.

    Args:
        models: Checkpoints, and diffusers folders (read by the host's DiffusersLoader).
        inputs: `x` [B,C,h,w], `t` [B], `context` [B,77,D] for the UNet, with `y` where it takes a vector or noise
        level;
            `z` [B,4,h,w] for the VAE's decoder and `pixels` [B,3,H,W] in -1..1 for its encoder.
        text: A prompt for the text encoders.
        work: An existing folder for what passes between the processes.

    Returns:
        For each model `unet`, `decoded`, `encoded` (the mean), `embeds` and, where there is one, `pooled`.
    """
    from tools import comfyui

    save_file({name: tensor.contiguous() for name, tensor in inputs.items()}, work / "in.safetensors")
    job = {"comfyui": str(comfyui.find()), "models": list(map(str, models)), "text": text, "work": str(work)}
    done = subprocess.run([sys.executable, str(Path(__file__)), json.dumps(job)], capture_output=True, text=True,
                          encoding="utf-8", timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    # No SD1 text encoder has a projection, and the host says so of every folder.
    complaints = done.stderr.replace("clip missing: ['text_projection.weight']", "")
    assert "missing" not in complaints.lower(), done.stderr[-4000:]
    return [load_file(work / f"out{number}.safetensors") for number in range(len(models))]


def _main(job: dict[str, str]) -> None:
    # On a processor the host makes each layer float32 while it computes; the weights need half the memory.
    sys.path[0], here = job["comfyui"], sys.path[0]
    sys.path.append(here)
    sys.argv = ["main.py", "--cpu", "--fp16-unet", "--fp16-text-enc", "--fp32-vae"]
    import comfy.options

    comfy.options.enable_args_parsing()
    import checkpoint_sized  # noqa: F401 - beside this file; builds them as the shape "small" has them
    import torch
    from comfy import model_management, sd
    from comfy.diffusers_load import load_diffusers

    given = load_file(Path(job["work"]) / "in.safetensors")
    for number, read in enumerate(job["models"]):
        load = load_diffusers if Path(read).is_dir() else sd.load_checkpoint_guess_config
        model, clip, vae = load(read)[:3]
        with torch.inference_mode():
            model_management.load_models_gpu([model])
            extra = {"y": given["y"]} if "y" in given else {}
            unet = model.model.diffusion_model
            made = {"unet": unet(given["x"], given["t"], context=given["context"], **extra)}
            embeds, pooled = clip.encode_from_tokens(clip.tokenize(job["text"]), return_pooled=True)
            made["embeds"] = embeds
            if pooled is not None:
                made["pooled"] = pooled
            model_management.load_models_gpu([vae.patcher])
            made["decoded"] = vae.first_stage_model.decode(given["z"])
            made["encoded"] = vae.first_stage_model.encode(given["pixels"])
        made = {name: tensor.float().contiguous() for name, tensor in made.items()}
        save_file(made, Path(job["work"]) / f"out{number}.safetensors")
        del model, clip, vae, unet
        model_management.unload_all_models()
        gc.collect()


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))
