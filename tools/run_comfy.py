"""Start ComfyUI with the pack in it, in a base folder of the project's own: .comfyui/base.

    python tools/run_comfy.py [--base FOLDER] [options of ComfyUI's main.py]

The pack's own small demo model and its pictures are put there. Models of the ComfyUI that is found are offered as
well; nothing is written into it. Pictures, LoRAs and converted models land in the base folder.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import comfyui

KINDS = ("checkpoints", "diffusers", "loras", "vae", "embeddings", "upscale_models", "clip_vision", "controlnet",
         "diffusion_models", "text_encoders")


def main() -> int:
    """Start the host and wait for its end."""
    parser = argparse.ArgumentParser(description="Start ComfyUI with the pack in it.", add_help=False)
    parser.add_argument("--base", type=Path, default=comfyui.ROOT / ".comfyui" / "base")
    arguments, options = parser.parse_known_args()

    host = comfyui.find()
    if host is None:
        print("No ComfyUI found; run: python tools/comfyui.py --clone", file=sys.stderr)
        return 1
    base = arguments.base.expanduser().resolve()
    comfyui.install_pack(base)
    _offer_demo(base)
    command = [sys.executable, str(host / "main.py"), "--base-directory", str(base), "--listen", "127.0.0.1",
               "--database-url", f"sqlite:///{(base / 'user' / 'comfyui.db').as_posix()}"]
    if host / "models" != base / "models":
        command += ["--extra-model-paths-config", str(_shared_models(host, base))]
    if not _has_gpu():
        command.append("--cpu")
    if not os.environ.get("CI"):
        command.append("--auto-launch")
    print(" ".join(command + options), flush=True)
    try:
        return subprocess.run(command + options, cwd=host).returncode
    except KeyboardInterrupt:
        return 0


def _offer_demo(base: Path) -> None:
    """The small model and the pictures that come with the pack, so that the first workflow can run."""
    sys.path.append(str(comfyui.ROOT))
    from atelier.demo.folders import DemoFolders, fill_folders

    fill_folders(DemoFolders.below(base))


def _shared_models(host: Path, base: Path) -> Path:
    """Write a file that makes ComfyUI search its own model folders too. JSON is YAML."""
    file = base / "extra_model_paths.yaml"
    folders = {"base_path": str(host / "models"), **{kind: kind for kind in KINDS}}
    file.write_text(json.dumps({"shared": folders}), encoding="utf-8")
    return file


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available() or torch.backends.mps.is_available() or \
        (hasattr(torch, "xpu") and torch.xpu.is_available())


if __name__ == "__main__":
    raise SystemExit(main())
