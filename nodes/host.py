"""Where the pack meets its host: folders, pictures, devices and memory; progress, interrupts, events and routes."""

from __future__ import annotations

import gc
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import comfy.model_management as management
import folder_paths
import torch

from ..atelier.dataset.tree import files_below
from ..atelier.errors import AtelierError
from ..atelier.temp_paths import is_part
from .monitor import HostProgress, route_table, running_node, send_event

__all__ = ["HostProgress", "Interrupt", "route_table", "running_node", "send_event"]

Interrupt = management.InterruptProcessingException
"""What the host raises to end a run; no `Exception`."""

if TYPE_CHECKING:
    from PIL.Image import Image


_ROOM_TO_COMPUTE = 512 * 1024 ** 2
"""Bytes kept free beside a model's weights for what it computes."""


# Folders ------------------------------------------------------------------------------------------------------------

def model_names(kind: str) -> list[str]:
    """Names of the files in the host's model folders of one kind ("checkpoints", "loras", …); cheap, cached by it."""
    return folder_paths.get_filename_list(kind)


def model_path(kind: str, name: str) -> Path:
    """The file that a name from `model_names` stands for; a name of another system's spelling (`\\`, `/`) is one too.

    Raises:
        AtelierError: no such file is listed.
    """
    listed = {known.replace("\\", "/"): known for known in model_names(kind)}.get(str(name).replace("\\", "/"))
    found = folder_paths.get_full_path(kind, listed) if listed else None
    if found is None:
        raise _missing(f"file {name!r} in the {kind} folders")
    return Path(found)


def model_folder(kind: str) -> Path:
    """The folder where new model files of one kind go: the first one the host knows."""
    return Path(folder_paths.get_folder_paths(kind)[0])


def diffusers_names() -> list[str]:
    """Diffusers folders in the host's model folders, by their path below `models/diffusers`, as deep as they lie."""
    return sorted(_diffusers_folders())


def diffusers_path(name: str) -> Path:
    """The folder that a name from `diffusers_names` stands for.

    Raises:
        AtelierError: there is no such folder.
    """
    return _listed(_diffusers_folders(), name, f"diffusers model {name!r} in the diffusers folders")


def peft_names() -> list[str]:
    """PEFT folders in the host's LoRA folders, by their path below; those with a folder for each component count
    once."""
    return sorted(_peft_folders())


def peft_path(name: str) -> Path:
    """The folder that a name from `peft_names` stands for.

    Raises:
        AtelierError: there is no such folder.
    """
    return _listed(_peft_folders(), name, f"PEFT folder {name!r} in the loras folders")


def clip_score_names() -> list[str]:
    """CLIP models in `models/clip_score`: folders with a configuration, and single weight files."""
    return sorted(_clip_models())


def clip_score_path(name: str) -> Path:
    """The folder or file that a name from `clip_score_names` stands for.

    Raises:
        AtelierError: there is no such model.
    """
    return _listed(_clip_models(), name, f"CLIP model {name!r} in models/clip_score",
                   "one there, such as the files of openai/clip-vit-base-patch32 in a folder of that name,")


def _listed(known: dict[str, Path], name: str, what: str, put: str = "it there") -> Path:
    if name not in known:
        raise _missing(what, put)
    return known[name]


def _missing(what: str, put: str = "it there") -> AtelierError:
    return AtelierError(f"There is no {what}.", f"Choose another one, or put {put} and press R in the editor.")


def _diffusers_folders() -> dict[str, Path]:
    found: dict[str, Path] = {}
    for root in map(Path, folder_paths.get_folder_paths("diffusers")):
        for place, below, files in os.walk(root, followlinks=True):
            folder = Path(place)
            below[:] = (name for name in below if not is_part(name))
            if "model_index.json" in files and folder != root:
                found.setdefault(folder.relative_to(root).as_posix(), folder)
                below.clear()  # inside a model there is no other
    return found


def _peft_folders() -> dict[str, Path]:
    found: dict[str, Path] = {}
    for root in map(Path, folder_paths.get_folder_paths("loras")):
        for place, below, files in os.walk(root):  # unlike `rglob`, it bears that folders go meanwhile
            folder = Path(place)
            below[:] = (name for name in below if not is_part(name))
            whole = folder.parent if folder.name in ("unet", "text_encoder", "text_encoder_2") else folder
            if "adapter_config.json" in files and whole != root:
                found.setdefault(whole.relative_to(root).as_posix(), whole)
    return found


def _clip_models() -> dict[str, Path]:
    found: dict[str, Path] = {}
    for root in _clip_score_folders():
        for path in (*(config.parent for config in root.glob("*/config.json")), *root.glob("*.safetensors")):
            found.setdefault(path.name, path)
    return found


def _clip_score_folders() -> list[Path]:
    # Beside those that the host's extra_model_paths.yaml may name.
    folder_paths.add_model_folder_path("clip_score", str(Path(folder_paths.models_dir) / "clip_score"))
    return [Path(folder) for folder in folder_paths.get_folder_paths("clip_score")]


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


def input_pictures() -> list[str]:
    """Names of the pictures in the host's input folder."""
    folder = Path(folder_paths.get_input_directory())
    names = [path.name for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []
    return sorted(folder_paths.filter_files_content_types(names, ["image"]))


def has_input_file(name: str) -> bool:
    """Whether a name from `input_pictures`, or of an uploaded file, stands for a file."""
    return bool(folder_paths.exists_annotated_filepath(name))


def input_file(name: str) -> Path:
    """The file that such a name stands for; it may carry the host's mark for another folder, as in "a.png [output]"."""
    return Path(folder_paths.get_annotated_filepath(name))


def sampler_names() -> list[str]:
    """The host's samplers."""
    import comfy.samplers

    return list(comfy.samplers.SAMPLER_NAMES)


def scheduler_names() -> list[str]:
    """The host's ways to space noise levels."""
    import comfy.samplers

    return list(comfy.samplers.SCHEDULER_NAMES)


def disk_state(path: Path) -> str:
    """Digest over names, sizes and times of a file or of all files below a folder; it reads none of them.

    Links to folders are followed. For `fingerprint_inputs`: it changes when a file does.
    """
    digest = hashlib.sha256()
    for file in sorted(p for p in files_below(path) if p.is_file()) if path.is_dir() else [path]:
        status = file.stat()
        digest.update(f"{file.relative_to(path).as_posix()}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def output_folder() -> Path:
    """Where the host keeps finished pictures."""
    return Path(folder_paths.get_output_directory())


def next_output_file(name: str, ending: str) -> tuple[Path, str]:
    """A file in the output folder that does not exist yet, numbered as the host's own nodes do it, and its subfolder.

    Args:
        name: Below the output folder, with / between folders.
    """
    folder, stem, number, subfolder, _ = folder_paths.get_save_image_path(name, str(output_folder()))
    while (path := Path(folder) / f"{stem}_{number:05}_{ending}").exists():
        number += 1
    return path, subfolder


def temp_folder() -> Path:
    """Where the host keeps pictures for this session; it empties the folder at start and end."""
    return Path(folder_paths.get_temp_directory())


def work_folder(name: str) -> Path:
    """A folder of the pack's own that outlives sessions: "cache", "runs", … below the host's user folder."""
    return Path(folder_paths.get_user_directory()) / "atelier" / name


def use_own_tokenizer() -> None:
    """Have the library build CLIP's tokenizer from the host's own copy of the vocabulary."""
    from ..atelier.models.tokenizer import use_tokenizer

    folder = Path(management.__file__ or "").parent / "sd1_tokenizer"
    use_tokenizer(folder if (folder / "merges.txt").is_file() else None)


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


def metadata(node: Any) -> dict[str, str]:
    """What the host writes into a saved picture: the graph and what the editor adds, unless the user switched it off.

    Args:
        node: The running node's class; it must be an output node.
    """
    from comfy.cli_args import args

    if args.disable_metadata or node.hidden is None:
        return {}
    values = {"prompt": node.hidden.prompt, **(node.hidden.extra_pnginfo or {})}
    return {name: json.dumps(value) for name, value in values.items() if value is not None}


def workflow_id(node: Any) -> str:
    """The id that the editor gave the running graph; empty for a graph that did not come from an editor.

    Args:
        node: The running node's class; it must be an output node.
    """
    extra = (node.hidden.extra_pnginfo if node.hidden else None) or {}
    return str((extra.get("workflow") or {}).get("id") or "")


def graph_builder() -> Any:
    """For a node that expands into others: `node(class, **inputs)`, `out(slot)`, `finalize()`."""
    from comfy_execution.graph_utils import GraphBuilder

    return GraphBuilder()


def run_image_model(model: Any, picture: torch.Tensor) -> torch.Tensor:
    """One picture `[H, W, 3]` through an UPSCALE_MODEL, with the host's memory management; the result may be larger.

    Up to 512 pixels a side it goes through whole.
    """
    from comfy_extras.nodes_upscale_model import ImageUpscaleWithModel

    return ImageUpscaleWithModel.execute(model, picture[None]).result[0][0]


def nothing() -> Any:
    """For an output that has no value this time: nodes that need it are silently left out of the run."""
    from comfy_execution.graph_utils import ExecutionBlocker

    return ExecutionBlocker(None)


# Devices and memory -------------------------------------------------------------------------------------------------

def device() -> torch.device:
    """The device the host computes on."""
    return management.get_torch_device()


def memory() -> tuple[int, int]:
    """(used, total) bytes of the device's memory, by all programs together."""
    total = int(management.get_total_memory(device()))
    return total - int(management.get_free_memory(device())), total


@contextmanager
def on_device(module: torch.nn.Module) -> Iterator[None]:
    """`module` on the host's device, in float16 where that is a GPU good at it, else float32. Other models make room.

    The whole module is moved: unlike the host's own layers, those of transformers cannot compute with weights that
    stayed elsewhere.
    """
    half = not management.is_device_cpu(device()) and management.should_use_fp16(device())
    dtype = torch.float16 if half else torch.float32
    size = sum(parameter.numel() for parameter in module.parameters()) * dtype.itemsize
    management.free_memory(size * 1.2 + _ROOM_TO_COMPUTE, device())
    try:
        module.to(device(), dtype)
        yield
    finally:
        module.to("cpu")
        _collect()


@contextmanager
def exclusive_device() -> Iterator[None]:
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
