"""The expanded demo model as diffusers itself reads it: `from_single_file`, not the pack's loaders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel

from atelier.demo import architecture
from atelier.demo.expand import TEXT
from atelier.models.tokenizer import load_tokenizer

SIZE, STEPS, GUIDANCE = 128, 12, 4.0


def load(checkpoint: Path, scratch: Path) -> StableDiffusionPipeline:
    """Build a pipeline in fp32 from the single file; `scratch` receives the configurations diffusers asks for."""
    parts = {}
    for name, kind, config in (("unet", UNet2DConditionModel, architecture.unet(320)),
                               ("vae", AutoencoderKL, architecture.vae(128))):
        folder = scratch / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps({"_class_name": kind.__name__, **config}))
        parts[name] = kind.from_single_file(str(checkpoint), config=str(scratch), subfolder=name,
                                            torch_dtype=torch.float32, local_files_only=True)
    text = CLIPTextModel(CLIPTextConfig(**architecture.TEXT))
    state = {n.removeprefix(TEXT): t for n, t in load_file(checkpoint).items() if n.startswith(TEXT)}
    own = text.state_dict().keys()
    text.load_state_dict({n if n in own else n.removeprefix("text_model."): t.float() for n, t in state.items()})
    pipeline = StableDiffusionPipeline(
        **parts, text_encoder=text.eval(), tokenizer=load_tokenizer(), safety_checker=None, feature_extractor=None,
        scheduler=EulerDiscreteScheduler(**{k: v for k, v in architecture.SCHEDULER.items() if k not in (
            "clip_sample", "set_alpha_to_one")}), requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def sample(pipeline: StableDiffusionPipeline, prompts: list[str], batch: int = 16) -> list[np.ndarray]:
    """Draw prompt i from seed i; uint8 `[128,128,3]` each."""
    pictures: list[np.ndarray] = []
    for i in range(0, len(prompts), batch):
        chunk = prompts[i:i + batch]
        noise = [torch.Generator().manual_seed(i + k) for k in range(len(chunk))]
        drawn = pipeline(chunk, height=SIZE, width=SIZE, num_inference_steps=STEPS, guidance_scale=GUIDANCE,
                         generator=noise, output_type="np").images
        pictures += [(picture * 255).round().astype(np.uint8) for picture in drawn]
    return pictures
