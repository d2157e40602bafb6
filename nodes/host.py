"""Where the pack meets its host: folders, devices, pictures, progress, interrupts and memory.

No other file of the pack imports the host's `folder_paths`, `server` or `comfy.model_management`.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comfy.model_management as management
import comfy.utils
import folder_paths
import torch
from comfy_execution.utils import get_executing_context

from ..atelier.errors import AtelierError
from ..atelier.progress import Monitor

if TYPE_CHECKING:
    from PIL.Image import Image

TEXT_INTERVAL = 0.25
"""Least seconds between two texts, or two batches of numbers, for one node."""


# Folders ------------------------------------------------------------------------------------------------------------

def model_names(kind: str) -> list[str]:
    """Names of the files in the host's model folders of one kind ("checkpoints", "loras", …); cheap, cached by it."""
    return folder_paths.get_filename_list(kind)


def model_path(kind: str, name: str) -> Path:
    """The file that a name from `model_names` stands for.

    Raises:
        AtelierError: there is no such file any more.
    """
    found = folder_paths.get_full_path(kind, name)
    if found is None:
        raise AtelierError(f"There is no file {name!r} in the {kind} folders.",
                           "Choose another one, or reload the node list after adding it.")
    return Path(found)


def model_folder(kind: str) -> Path:
    """The folder where new model files of one kind go: the first one the host knows."""
    return Path(folder_paths.get_folder_paths(kind)[0])


def input_folder(text: str) -> Path:
    """A folder a person typed: absolute, with `~`, or relative to the host's input folder.

    Raises:
        AtelierError: it is empty or not a folder.
    """
    if not text.strip():
        raise AtelierError("No folder is given.",
                           "Type the path of a folder, or the name of one in ComfyUI's input folder.")
    typed = Path(text.strip().strip('"')).expanduser()
    path = typed if typed.is_absolute() else Path(folder_paths.get_input_directory()) / typed
    if not path.is_dir():
        raise AtelierError(f"{path} is not a folder.",
                           "Type an existing folder: an absolute path, or one relative to ComfyUI's input folder.")
    return path


def output_folder() -> Path:
    """Where the host keeps finished pictures."""
    return Path(folder_paths.get_output_directory())


def temp_folder() -> Path:
    """Where the host keeps pictures for this session; it empties the folder at start and end."""
    return Path(folder_paths.get_temp_directory())


def work_folder(name: str) -> Path:
    """A folder of the pack's own that outlives sessions: "cache", "runs", … below the host's user folder."""
    return Path(folder_paths.get_user_directory()) / "atelier" / name


# Pictures -----------------------------------------------------------------------------------------------------------

def to_image_tensor(pictures: Sequence[Image]) -> torch.Tensor:
    """PIL pictures of one size as the host's IMAGE: `[B, H, W, 3]`, float 0..1, on CPU."""
    import numpy as np

    return torch.from_numpy(np.stack([np.asarray(p.convert("RGB"), dtype=np.float32) / 255 for p in pictures]))


def from_image_tensor(images: torch.Tensor) -> list[Image]:
    """The host's IMAGE `[B, H, W, C]`, float 0..1 (values beyond are cut), as PIL pictures."""
    from PIL import Image

    levels = (images.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    return [Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture) for picture in levels]


# Devices and memory -------------------------------------------------------------------------------------------------

def device() -> torch.device:
    """The device the host computes on."""
    return management.get_torch_device()


def compute_dtype() -> torch.dtype:
    """The type for the heavy products of training: bfloat16 or float16 where the device is good at it, else float32."""
    if management.is_device_cpu(device()):
        return torch.float32
    if management.should_use_bf16(device()):
        return torch.bfloat16
    return torch.float16 if management.should_use_fp16(device()) else torch.float32


def free_memory() -> int:
    """Bytes free on the device the host computes on."""
    return int(management.get_free_memory(device()))


@contextmanager
def training_room() -> Iterator[None]:
    """A place where gradients work and the device is empty; memory goes back to the host at the end.

    The host runs a prompt in inference mode, whose tensors can never take part in training. Models must be loaded
    inside this block, not handed in from outside.
    """
    management.unload_all_models()
    _collect()
    try:
        with torch.inference_mode(False):
            yield
    finally:
        _collect()


def _collect() -> None:
    gc.collect()
    management.soft_empty_cache()


# Progress -----------------------------------------------------------------------------------------------------------

def check_interrupt() -> None:
    """Raise the host's own interrupt (a `BaseException`) once the user asked to stop."""
    management.throw_exception_if_processing_interrupted()


class HostMonitor(Monitor):
    """Moves the running node's bar, text and preview, and stops the work when the user presses cancel.

    The bar goes through the host's throttled `ProgressBar`; texts and measured numbers are sent at most four times
    a second, and the last of a phase always. Numbers travel as the event `atelier.measure`,
    `{"node": id, "values": [{"step": …, "loss": …}, …]}`.
    """

    def __init__(self) -> None:
        context = get_executing_context()
        self._node = context.node_id if context else None
        self._bar = comfy.utils.ProgressBar(1, node_id=self._node)
        self._phase = ""
        self._total = 1
        self._began = self._said = self._measured = 0.0
        self._values: list[dict[str, float]] = []

    def check(self) -> None:
        """Raise the host's interrupt once it was asked for."""
        check_interrupt()

    def phase(self, name: str, total: int) -> None:
        """Start the bar anew for `total` steps of work called `name`."""
        self._send_values()
        self._phase, self._total, self._began = name, max(total, 1), time.monotonic()
        self._bar = comfy.utils.ProgressBar(self._total, node_id=self._node)
        self._say(name)

    def advance(self, done: int, text: str = "") -> None:
        """Move the bar to `done` and write `text` on the node; without one, phase, count, speed and time left."""
        self._bar.update_absolute(done)
        now = time.monotonic()
        if now - self._said >= TEXT_INTERVAL or done >= self._total:
            speed = _speed(done, self._total, now - self._began)
            self._say(text or f"{self._phase} {done}/{self._total}" + (f" · {speed}" if speed else ""))

    def preview(self, image: Image) -> None:
        """Show `image` on the node, at the size the host chose for previews."""
        from comfy.cli_args import args

        self._bar.update_absolute(self._bar.current, preview=("JPEG", image.convert("RGB"), args.preview_size))

    def measure(self, values: Mapping[str, float]) -> None:
        """Collect `values` and send what has gathered, at most four times a second."""
        self._values.append(dict(values))
        if time.monotonic() - self._measured >= TEXT_INTERVAL:
            self._send_values()

    def _send_values(self) -> None:
        if self._values:
            send_event("atelier.measure", {"node": self._node, "values": self._values})
            self._values, self._measured = [], time.monotonic()

    def _say(self, text: str) -> None:
        server = _server()
        if server is not None and self._node is not None:
            server.send_progress_text(text, self._node)
        self._said = time.monotonic()


def send_event(name: str, data: dict[str, Any]) -> None:
    """Send an event to the editor that queued the running prompt; nobody listening is fine."""
    server = _server()
    if server is not None:
        server.send_sync(name, data, server.client_id)


def _server() -> Any:
    from server import PromptServer

    # Absent in a process that has the host's modules but no server: tests, scripts.
    return getattr(PromptServer, "instance", None)


def _speed(done: int, total: int, seconds: float) -> str:
    """"2.1 it/s, 0:42 left"; nothing before the first second."""
    if done <= 0 or seconds < 1:
        return ""
    rate = done / seconds
    left = round((total - done) / rate)
    speed = f"{rate:.1f} it/s" if rate >= 1 else f"{1 / rate:.1f} s/it"
    return f"{speed}, {left // 60}:{left % 60:02d} left" if left else speed
