"""LoRA files: written whole, read back and checked before they get their name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import AtelierError
from ..files import whole_file, whole_folder, write_json
from .forms import diffusers_state, kohya_state, peft_state, read_state, unmatched
from .weights import LoraWeights, check_usable, select


def save_lora(path: Path, weights: LoraWeights, *, form: str = "kohya", metadata: Mapping[str, str] | None = None,
              dtype: torch.dtype = torch.float32) -> Path:
    """Write `weights` to `path`.

    Args:
        path: A `.safetensors` file; for the form "peft" a folder, as PEFT's `from_pretrained` takes it.
        weights: What to write. Empty, NaN or all-zero weights are refused.
        form: "kohya", "diffusers" or "peft" (see `atelier.lora.forms`).
        metadata: String pairs for the safetensors header; none of them may hold a secret.
        dtype: Storage type of the tensors.

    Raises:
        AtelierError: the weights are not usable, or what was written does not read back equal.
    """
    check_usable(weights, path.name)
    header = {"format": "pt", **(metadata or {})}
    if form == "peft":
        return _save_peft(path, weights, header, dtype)
    if form not in ("kohya", "diffusers"):
        raise AtelierError(f"LoRA form {form!r} is not known.", "Choose kohya, diffusers or peft.")
    state = kohya_state(weights, dtype) if form == "kohya" else diffusers_state(weights, dtype)
    with whole_file(path) as part:
        _save_checked(part, state, header, path.name)
    return path


def load_lora(path: Path) -> LoraWeights:
    """Read a LoRA file in kohya or diffusers keys, or a PEFT folder.

    Raises:
        AtelierError: not a readable safetensors file, or it holds no usable adapter.
    """
    if path.is_dir():
        return _load_peft(path)
    state = read_tensors(path)
    weights = read_state(state)
    check_usable(weights, path.name)
    left = unmatched(state)
    if left:
        raise AtelierError(f"{path.name}: {len(left)} of {len(state)} keys are not LoRA keys of a kind known here "
                           f"(first: {left[0]}).", "Convert the file with the program that made it.")
    return weights


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, on the CPU.

    Raises:
        AtelierError: the file is missing, cut short or of another kind.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    except FileNotFoundError as error:
        raise AtelierError(f"{path} does not exist.", "Choose an existing LoRA file.") from error
    except (SafetensorError, OSError) as error:
        raise AtelierError(f"{path} is not a readable safetensors file ({error}).",
                           "Download or train it again.") from error


def read_metadata(path: Path) -> dict[str, str]:
    """The header's string pairs of a safetensors file."""
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise AtelierError(f"{path} is not a readable safetensors file ({error}).",
                           "Choose another file.") from error


def _save_checked(part: Path, state: dict[str, Tensor], header: dict[str, str], name: str) -> None:
    save_file(state, part, metadata=header)
    written = read_tensors(part)
    if written.keys() != state.keys() or any(not torch.equal(written[key], state[key]) for key in state):
        raise AtelierError(f"{name} did not read back as it was written.", "Check the disk, then save again.")


def _save_peft(path: Path, weights: LoraWeights, header: dict[str, str], dtype: torch.dtype) -> Path:
    components = sorted({name.split(".", 1)[0] for name in weights})
    if components != ["unet"]:
        raise AtelierError(f"A PEFT folder holds one component; this LoRA has {', '.join(components)}.",
                           "Choose the kohya or diffusers form, or train without the text encoder.")
    modules = select(weights, "unet")
    first = next(iter(modules.values()))
    ranks = {name: module.rank for name, module in modules.items() if module.rank != first.rank}
    alphas = {name: module.alpha for name, module in modules.items() if module.alpha != first.alpha}
    config = {
        "peft_type": "LORA", "base_model_name_or_path": None, "bias": "none", "fan_in_fan_out": False,
        "inference_mode": True, "r": first.rank, "lora_alpha": first.alpha, "lora_dropout": 0.0,
        "target_modules": sorted(modules), "rank_pattern": ranks, "alpha_pattern": alphas,
        "use_dora": first.magnitude is not None, "use_rslora": False,
    }
    with whole_folder(path) as part:
        _save_checked(part / "adapter_model.safetensors", peft_state(weights, "unet", dtype), header, path.name)
        write_json(part / "adapter_config.json", config)
    return path


def _load_peft(path: Path) -> LoraWeights:
    from .peft_config import read_peft_config

    config = read_peft_config(path)
    state = read_tensors(path / "adapter_model.safetensors")
    plain = read_state(state, alpha=config.alpha)
    weights = {name: config.scaled(name, module) for name, module in plain.items()}
    check_usable(weights, path.name)
    return weights
