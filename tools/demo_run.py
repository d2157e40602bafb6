"""What the stages of a training run share: state on disk, logging and resuming."""

from __future__ import annotations

import json
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch


@dataclass
class Run:
    """A folder of resumable state. Every random choice follows from `seed` and the step, never from time."""

    folder: Path
    seed: int = 0
    device: str = "cpu"
    bf16: bool = True
    save_every: float = 60.0
    """Seconds between checkpoints; they do not influence the result."""
    workers: int = 1
    """Processes that share each batch; on a busy machine two of one thread are faster than one of two threads."""
    rank: int = 0
    """Which of them this is; only the first one logs and saves."""
    _began: float = field(default_factory=time.monotonic)
    _saved: float = field(default_factory=time.monotonic)
    _recent: list[float] = field(default_factory=list)
    _logged: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        if self.workers > 1:
            torch.distributed.init_process_group("gloo", init_method=f"file://{(self.folder / 'meeting').resolve()}",
                                                 rank=self.rank, world_size=self.workers)

    def average(self, model: torch.nn.Module) -> None:
        """Replace each gradient by its mean over all workers."""
        if self.workers == 1:
            return
        gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        torch.distributed.all_reduce(flat)
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient)).div_(self.workers)

    def autocast(self) -> AbstractContextManager[Any]:
        """Matrix products in bf16 where asked for; weights and the loss stay in fp32."""
        return torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.bf16)

    def resume(self, stage: str, model: torch.nn.Module, optimizer: torch.optim.Optimizer,
               ema: torch.nn.Module | None = None) -> int:
        """Load the stage's state if there is one; return the number of its finished steps."""
        path = self.folder / f"{stage}.pt"
        if not path.exists():
            return 0
        state = torch.load(path, map_location=self.device, weights_only=True)
        model.load_state_dict(state["model"])
        if ema is not None:
            ema.load_state_dict(state["ema"])
        optimizer.load_state_dict(state["optimizer"])
        return state["step"]

    def due(self, stage: str, step: int, steps: int) -> bool:
        """Whether to write a checkpoint: at regular times, and at the last step."""
        if self.rank:
            return False
        return step + 1 == steps or time.monotonic() - self._saved > self.save_every

    def save(self, stage: str, step: int, model: torch.nn.Module, optimizer: torch.optim.Optimizer,
             ema: torch.nn.Module | None = None) -> None:
        """Write the stage's state to a temporary file and rename it over the last one."""
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step,
                 "ema": ema.state_dict() if ema is not None else {}}
        part = self.folder / f"{stage}.pt.part"
        torch.save(state, part)
        part.replace(self.folder / f"{stage}.pt")
        self._saved = time.monotonic()

    def log(self, stage: str, step: int, steps: int, loss: float) -> None:
        """Record a step's loss, and log the mean since the last line about every ten seconds."""
        self._recent.append(loss)
        if self.rank:
            return
        if time.monotonic() - self._logged > 10 or step + 1 == steps:
            self.log_now(stage, step, loss=sum(self._recent) / len(self._recent), of=steps)
            self._recent, self._logged = [], time.monotonic()

    def log_now(self, stage: str, step: int, **values: float) -> None:
        """Append one line to the run's log and print it."""
        line = {"stage": stage, "step": step + 1, "seconds": round(time.monotonic() - self._began, 1),
                **{k: round(v, 5) for k, v in values.items()}}
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)


def step_generator(seed: int, step: int) -> torch.Generator:
    """A generator for one step's choices, so that a resumed run makes the same choices as an unbroken one."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def shown(pictures: torch.Tensor, path: Path, columns: int) -> None:
    """Save `[B,3,H,W]` in -1..1 as one contact sheet."""
    from PIL import Image
    rows = [torch.cat(list(row), dim=2) for row in pictures.split(columns)]
    sheet = ((torch.cat(rows, dim=1).float().permute(1, 2, 0) + 1) * 127.5).clamp(0, 255).byte()
    Image.fromarray(sheet.numpy()).save(path)
