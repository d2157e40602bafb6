"""Put LoRA files on a checkpoint by ComfyUI's own loading, in a process of its own, and bring the numbers home."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor


def host_with_loras(model: Path, loras: Sequence[tuple[Path, float]], inputs: Mapping[str, Tensor], text: str,
                    work: Path) -> list[dict[str, Tensor]]:
    """What ComfyUI makes of the inputs without a LoRA, and with each one at its strength.

    Args:
        model: A checkpoint.
        loras: Files and strengths (of UNet and text encoder alike), each put on the fresh model by
            `comfy.sd.load_lora_for_models`, as core's LoraLoader does.
        inputs: `x` [B,4,h,w], `t` [B], `context` [B,77,D] for the UNet, with `y` where it takes a vector.
        text: A prompt for the text encoders.
        work: An existing folder for what passes between the processes.

    Returns:
        `unet`, `embeds` and, where there is one, `pooled`; first without a LoRA.

    Raises:
        AssertionError: the host complained of a key that it did not load.
    """
    from tools import comfyui

    save_file({name: tensor.contiguous() for name, tensor in inputs.items()}, work / "in.safetensors")
    job = {"comfyui": str(comfyui.find()), "model": str(model), "text": text, "work": str(work),
           "loras": [[str(path), strength] for path, strength in loras]}
    done = subprocess.run([sys.executable, str(Path(__file__)), json.dumps(job)], capture_output=True, text=True,
                          encoding="utf-8", timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    for complaint in ("lora key not loaded", "ERROR lora", "NOT LOADED", "missing"):
        assert complaint not in done.stdout + done.stderr, done.stderr[-4000:]
    return [load_file(work / f"out{number}.safetensors") for number in range(len(loras) + 1)]


def _main(job: dict) -> None:
    sys.path[0], here = job["comfyui"], sys.path[0]
    sys.path.append(here)
    sys.argv = ["main.py", "--cpu", "--fp32-unet", "--fp32-vae", "--fp32-text-enc"]
    import comfy.options

    comfy.options.enable_args_parsing()
    import checkpoint_sized  # noqa: F401 - beside this file; builds them as the shape "small" has them
    import torch
    from comfy import model_management, sd
    from comfy.utils import load_torch_file

    given = load_file(Path(job["work"]) / "in.safetensors")
    base, base_clip = sd.load_checkpoint_guess_config(job["model"], output_vae=False)[:2]
    extra = {"y": given["y"]} if "y" in given else {}
    for number, (path, strength) in enumerate([(None, 0.0), *job["loras"]]):
        model, clip = base, base_clip
        if path is not None:
            model, clip = sd.load_lora_for_models(base, base_clip, load_torch_file(path), strength, strength)
        with torch.inference_mode():
            model_management.load_models_gpu([model])
            made = {"unet": model.model.diffusion_model(given["x"], given["t"], context=given["context"], **extra)}
            embeds, pooled = clip.encode_from_tokens(clip.tokenize(job["text"]), return_pooled=True)
        made["embeds"] = embeds
        if pooled is not None:
            made["pooled"] = pooled
        save_file({name: tensor.float().contiguous() for name, tensor in made.items()},
                  Path(job["work"]) / f"out{number}.safetensors")
        if path is not None:
            model.unpatch_model()
            clip.patcher.unpatch_model()


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))
