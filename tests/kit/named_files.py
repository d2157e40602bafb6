"""Empty files under every name that the shipped workflows give, for tests that look no further than names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.workflows import QUEUE_ONLY, TITLES, read_api

CHECKPOINTS, LORAS, CLIPS = "models/checkpoints", "models/loras", "models/clip_score"
NAMED = {
    "CheckpointLoaderSimple": {"ckpt_name": CHECKPOINTS}, "AtelierConvertCheckpoint": {"checkpoint": CHECKPOINTS},
    "AtelierOpenModel": {"model": CHECKPOINTS}, "AtelierModelToCompare": {"checkpoint": CHECKPOINTS, "lora": LORAS},
    "LoraLoader": {"lora_name": LORAS}, "LoraLoaderModelOnly": {"lora_name": LORAS},
    "UNETLoader": {"unet_name": "models/diffusion_models"}, "CLIPLoader": {"clip_name": "models/text_encoders"},
    "VAELoader": {"vae_name": "models/vae"},
    "ControlNetLoader": {"control_net_name": "models/controlnet"},
    "UpscaleModelLoader": {"model_name": "models/upscale_models"},
    "LoadMediaPipeFaceLandmarker": {"model_name": "models/detection"},
    "LoadDA3Model": {"model_name": "models/geometry_estimation"}, "LoadImage": {"image": "input"},
    "AtelierCLIPScore": {"model": CLIPS}, "AtelierCompareModels": {"score_model": CLIPS},
    "AtelierXYGrid": {"score_model": CLIPS}, "AtelierTrainingOptions": {"score_model": CLIPS},
    "AtelierConvertLora": {"lora": LORAS}, "AtelierResizeLora": {"lora": LORAS},
    "AtelierMergeLoras": {"first": LORAS, "second": LORAS}, "AtelierReadPrompt": {"image": "input"},
    "AtelierImageFolder": {"folder": "input"}, "AtelierFillerImages": {"folder": "input"},
    "AtelierCaptionPictures": {"folder": "input"},
}
"""Where the files and folders are that widgets name, by class."""


@contextmanager
def named_files(base: Path) -> Iterator[None]:
    """Put the files that are not there into a host's base folder, and take them away afterwards."""
    made: list[Path] = []
    for name in (*TITLES, *QUEUE_ONLY):
        for node in read_api(name).values():
            for widget, folder in NAMED.get(node["class_type"], {}).items():
                if node["inputs"][widget] == "none" or isinstance(node["inputs"][widget], list):
                    continue  # the graph itself provides what a link names
                file = base / folder / node["inputs"][widget]
                file = file if file.suffix else file / "config.json"
                if not file.exists() and not (file.parent.is_dir() and file.name == "config.json"):
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.touch()
                    made.append(file)
    try:
        yield
    finally:  # or other tests in this host would load them
        for file in made:
            file.unlink()
            # A model's own folder; the host's folders stay.
            if file.name == "config.json" and not any(file.parent.iterdir()):
                file.parent.rmdir()
