"""One engine of `benchmarks/train.py`, in a process of its own: load, warm up, train a few timed steps.

Every engine trains a LoRA of the same rank on the same layers of the same weights, with the same pictures and
captions, batch and optimiser; what differs is how a step is done. ComfyUI's node has no choice of layers: it trains
all.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path += [str(ROOT), str(ROOT / "tests")]

RANK, RATE = 16, 1e-4


@dataclass(frozen=True)
class Job:
    """The request to one process."""

    engine: str
    checkpoint: str
    pictures: str
    cache: str
    size: int
    batch: int
    dtype: str
    warmup: int
    steps: int
    seconds: float = 0.0
    """Steps go on until so much time is measured, too: a card does dozens a second."""
    comfyui: str = ""
    bypass: bool = False
    family: str = "sd1"


class Done(Exception):
    """Ends the engine: enough steps were timed."""


class Clock:
    """Called after every step; times those after the warm-up and ends the engine when it has them."""

    def __init__(self, job: Job) -> None:
        self.job, self.seen, self.began, self.seconds = job, 0, 0.0, 0.0
        self.worked = 0.0
        """Seconds of processor time, which count only while the process has a core."""
        self.peak_mb = 0.0
        """The most memory that was in use while steps were timed: neither loading nor encoding counts."""

    @property
    def steps(self) -> int:
        """How many were timed."""
        return self.seen - self.job.warmup

    def __call__(self) -> None:
        self.seen += 1
        if self.steps == 0:
            synchronise()
            reset_peak()
            self.began, self.worked = time.perf_counter(), time.process_time()
        elif self.steps >= self.job.steps and time.perf_counter() - self.began >= self.job.seconds:
            synchronise()
            self.seconds, self.worked = time.perf_counter() - self.began, time.process_time() - self.worked
            self.peak_mb = peak_mb()
            raise Done


def synchronise() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def reset_peak() -> None:
    """Have `peak_mb` count from now on, where the system can do that: on a card, and on Linux."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    elif sys.platform == "linux":
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_mb() -> float:
    """The most megabytes that were in use since `reset_peak`: of the card, or of this process."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    if sys.platform == "linux":
        lines = Path("/proc/self/status").read_text("ascii").splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024 / 1e6
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def atelier(job: Job, clock: Callable[[], None]) -> None:
    """Our own loop as in a user's run: progress, losses read, everything cached."""
    from atelier.dataset.folder import read_folder
    from atelier.progress import Progress
    from atelier.train.devices import RunPaths
    from atelier.train.request.presets import build_request
    from atelier.train.run import train

    class Watch(Progress):
        def __init__(self) -> None:
            self.training = False

        def phase(self, name: str, total: int) -> None:
            self.training = name == "training"

        def check(self) -> None:
            if self.training:  # asked before every step, so once more than steps were done
                clock()

    options = dict(monitor="off", patience=0, batch_size=job.batch, learning_rate=RATE, schedule="constant",
                              precision=job.dtype, compile="on" if job.engine == "atelier-compiled" else "off",
                              cuda_graphs="on" if job.engine == "atelier-graphs" else "off")
    paths = RunPaths(Path(job.cache) / "loras", Path(job.cache) / f"runs {os.getpid()}", Path(job.cache) / "cache")
    train("bench", _model(job), read_folder(Path(job.pictures), _folder(job)),
          build_request(None, options, dict(rank=RANK, alpha=RANK, steps=10_000)), paths, Watch())


def diffusers_style(job: Job, clock: Callable[[], None]) -> None:
    """The steps of diffusers' `train_text_to_image_lora.py`, or of its sister for SDXL, whose VAE is in float32:
    picture and caption are encoded every time."""
    _reference(job, clock, cached=False)


def kohya_style(job: Job, clock: Callable[[], None]) -> None:
    """The steps of sd-scripts' `train_network.py` with `--cache_latents`: captions are encoded every time."""
    _reference(job, clock, cached=True)


def _reference(job: Job, clock: Callable[[], None], *, cached: bool) -> None:
    import torch
    from diffusers import DDPMScheduler
    from peft import LoraConfig
    from torch.nn.functional import mse_loss

    from atelier.models.load import load_scheduler_config, load_text, load_unet, load_vae
    from atelier.train.request.lora import TARGETS

    device, dtype = _device(), _dtype(job)
    model = _model(job)
    xl = job.family == "sdxl"
    unet, text = (load(model, dtype=dtype, device=device) for load in (load_unet, load_text))
    vae = load_vae(model, dtype=torch.float32 if xl else dtype, device=device)
    unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, init_lora_weights="gaussian",
                                target_modules=TARGETS["attention"]))
    trained = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.data = parameter.data.float()  # as both scripts keep them, hence the autocast
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.01)
    scheduler = DDPMScheduler.from_config({**load_scheduler_config(model), "_class_name": "DDPMScheduler"})
    encoder = next(iter(text.encoders.values()))
    tokenizer = next(iter(text.tokenizers.values()))
    pixels, captions = _pixels(job, device, vae.dtype)
    time_ids = torch.tensor([[job.size, job.size, 0, 0, job.size, job.size]], device=device, dtype=dtype)

    def latents(rows: slice) -> torch.Tensor:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            return (vae.encode(pixels[rows]).latent_dist.sample() * vae.config["scaling_factor"]).to(dtype)

    def conditions(rows: slice) -> tuple[torch.Tensor, dict[str, torch.Tensor] | None]:
        with torch.no_grad():
            if xl:
                both = text.encode(captions[rows])
                return both.embeds, {"text_embeds": both.pooled, "time_ids": time_ids.expand(len(captions[rows]), 6)}
            ids = tokenizer(captions[rows], padding="max_length", max_length=77, truncation=True,
                            return_tensors="pt").input_ids.to(device)
            return encoder(ids)[0], None

    kept = torch.cat([latents(slice(i, i + 1)) for i in range(len(pixels))]) if cached else None
    mixed = torch.autocast(device.type, dtype=dtype) if dtype != torch.float32 else nullcontext()
    unet.train()
    step = 0
    while True:
        first = (step * job.batch) % (len(pixels) - job.batch + 1)
        rows = slice(first, first + job.batch)
        with mixed:
            x = kept[rows] if kept is not None else latents(rows)
            words, added = conditions(rows)
            noise = torch.randn_like(x)
            t = torch.randint(0, 1000, (len(x),), device=device)
            loss = mse_loss(unet(scheduler.add_noise(x, noise, t), t, words, added_cond_kwargs=added,
                                 return_dict=False)[0].float(), noise.float())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()
        step += 1
        clock()


def core(job: Job, clock: Callable[[], None]) -> None:
    """ComfyUI's `TrainLoraNode` as it comes (gradient checkpointing on), or its bypass mode without checkpointing."""
    sys.path.insert(0, job.comfyui)
    sys.argv = ["main.py", *([] if on_card() else ["--cpu"])]
    import comfy.options

    comfy.options.enable_args_parsing()
    import comfy.sd
    import comfy.utils
    import torch
    from comfy_extras.nodes_train import TrainLoraNode
    from kit import checkpoint_sized

    checkpoint_sized.patch()
    model, clip, vae = comfy.sd.load_checkpoint_guess_config(job.checkpoint)[:3]
    pixels, captions = _pixels(job, torch.device("cpu"), torch.float32)
    with torch.inference_mode():
        latents = [{"samples": vae.encode((picture.movedim(0, -1)[None] + 1) / 2)} for picture in pixels]
        positive = [clip.encode_from_tokens_scheduled(clip.tokenize(caption)) for caption in captions]

    class Node(TrainLoraNode):
        hidden = type("Hidden", (), {"unique_id": "1", "prompt": None, "extra_pnginfo": None})()

    # Not the host's hook, which is not called for every step.
    comfy.utils.ProgressBar.update_absolute = lambda bar, value, *rest, **more: clock()
    dtype = {"fp32": "fp32", "bf16": "bf16"}[job.dtype]
    values: dict[str, Any] = {
        "model": model, "batch_size": job.batch, "steps": 10_000, "grad_accumulation_steps": 1, "learning_rate": RATE,
        "rank": RANK, "optimizer": "AdamW", "loss_function": "MSE", "seed": 0, "training_dtype": dtype,
        "lora_dtype": "fp32" if dtype == "fp32" else "bf16", "quantized_backward": False, "algorithm": "LoRA",
        "gradient_checkpointing": not job.bypass, "checkpoint_depth": 1, "offloading": False,
        "existing_lora": "[None]", "bucket_mode": False, "bypass_mode": job.bypass}
    Node.execute(latents=latents, positive=positive, **{name: [value] for name, value in values.items()})


ENGINES: dict[str, Callable[[Job, Callable[[], None]], None]] = {
    "atelier-eager": atelier, "atelier-graphs": atelier, "atelier-compiled": atelier,
    "diffusers-style": diffusers_style,
    "kohya-style": kohya_style, "core TrainLoraNode": core, "core, bypass": core,
}


def on_card() -> bool:
    import torch

    return torch.cuda.is_available()


def _device() -> Any:
    import torch

    return torch.device("cuda" if on_card() else "cpu")


def _dtype(job: Job) -> Any:
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16}[job.dtype]


def _model(job: Job) -> Any:
    from atelier.models.open import open_model

    return open_model(Path(job.checkpoint))


def _folder(job: Job) -> Any:
    from atelier.dataset.folder import FolderOptions
    from atelier.dataset.types import Resolution

    return FolderOptions(resolution=Resolution(job.size))


def _pixels(job: Job, device: Any, dtype: Any) -> tuple[Any, list[str]]:
    """All pictures `[N,3,H,W]` in -1..1 and their captions."""
    import numpy as np
    import torch
    from PIL import Image

    files = sorted(Path(job.pictures).glob("*.png"))
    arrays = [np.asarray(Image.open(file).convert("RGB").resize((job.size, job.size))) for file in files]
    pixels = torch.from_numpy(np.stack(arrays)).movedim(-1, 1).float() / 127.5 - 1
    return pixels.to(device, dtype), [file.with_suffix(".txt").read_text("utf-8") for file in files]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep standard output for the one line at the end."""
    kept, sys.stdout = sys.stdout, sys.stderr
    try:
        yield
    finally:
        sys.stdout = kept


def main() -> None:
    job = Job(**json.loads(sys.argv[1]))
    clock = Clock(job)
    with _quiet(), suppress(Done):
        ENGINES[job.engine](job, clock)
    samples = clock.steps * job.batch
    # The device that computes: a card, or the processor.
    print(json.dumps({"samples_per_s": samples / clock.seconds, "peak_mb": clock.peak_mb,
                      "steps": clock.steps,
                      "samples_per_worked_s": samples / (clock.seconds if on_card() else clock.worked)}))


if __name__ == "__main__":
    main()
