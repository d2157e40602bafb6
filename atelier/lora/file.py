"""LoRA files: written whole, read back and checked before they get their name."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..checkpoint.content import check_content
from ..checkpoint.pickled import PICKLES, WEIGHT_ENDINGS, read_pickle
from ..errors import AtelierError
from ..files import atomic_file, atomic_folder, write_json
from .formats import diffusers_state, kohya_state, peft_path, peft_state, read_state, unmatched
from .keys import BUNDLED_PREFIX, other_kinds
from .names import COMPONENTS, FORMATS, of_other_network, with_text_model
from .peft_config import read_peft_config, scaled_by_header
from .transformer_names import diffusers_weights
from .weights import LoraWeights, PlainWeights, check_usable, kinds_text, others, plain, select

_log = logging.getLogger("atelier")

PEFT_WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True)
class LoraFile:
    """What was found in a LoRA file or PEFT folder."""

    weights: LoraWeights
    keys: int
    """How many tensors it holds."""
    unmatched: tuple[str, ...]
    """The keys of those that are no part of an adapter known here."""
    metadata: Mapping[str, str]
    """The header's string pairs; of a folder, none."""

    @property
    def matched(self) -> int:
        """How many tensors are part of `weights`."""
        return self.keys - len(self.unmatched)

    def left_out(self, shown: int = 5) -> str:
        """A line for a person that names some of `unmatched`; empty where there are none."""
        if not self.unmatched:
            return ""
        more, kinds = len(self.unmatched) - shown, other_kinds(self.unmatched)
        return (f"Left out{f' ({kinds})' if kinds else ''}: {', '.join(self.unmatched[:shown])}"
                f"{f' and {more} more' if more > 0 else ''}")


def save_lora(path: Path, weights: LoraWeights, *, format: str = "kohya", metadata: Mapping[str, str] | None = None,
              dtype: torch.dtype = torch.float32, replace: bool = True) -> Path:
    """Write `weights` to `path`.

    Args:
        path: A `.safetensors` file; for the format "peft" a folder, as PEFT's `from_pretrained` takes it. A LoRA of
            more than the UNet becomes one such folder for each component below it ("unet", "text_encoder", …).
        weights: What to write. Empty, NaN or all-zero weights are refused.
        format: "kohya", "diffusers" or "peft" (see `atelier.lora.formats`).
        metadata: String pairs for the safetensors header; none of them may hold a secret.
        dtype: Storage type of the tensors.
        replace: Whether a file that stands there goes.

    Raises:
        NameTaken: there is one, and it does not.
        AtelierError: the weights are not usable, something else stands at `path`, or what was written does not read
            back equal.
    """
    check_usable(weights, path.name)
    header = {"format": "pt", **(metadata or {})}
    if format not in FORMATS:
        raise AtelierError(f"LoRA format {format!r} is not known.", f"Choose one of: {', '.join(FORMATS)}.")
    foreign = others(weights)
    if format != "kohya" and foreign:
        raise AtelierError(f"{path.name} would hold {len(foreign)} of {len(weights)} layers of kinds "
                           f"({kinds_text(foreign)}) that the {format} format has no place for.",
                           "Keep it in kohya's format, or convert it: Convert LoRA makes LoRA of them.")
    modules = plain(weights)
    if format != "kohya" and any(module.by_input for module in modules.values()):
        raise AtelierError(f"{path.name} would hold a DoRA that scales input channels, which the {format} format has "
                           "no place for.", "Keep it in kohya's format.")
    modules = in_form(modules, format, header.get("ss_base_model_version", ""))
    if format == "peft":
        return _save_peft(path, modules, header, dtype)
    if path.is_dir():
        raise AtelierError(f"{path} is a folder.", "Choose the name of a .safetensors file.")
    state = kohya_state(weights, dtype) if format == "kohya" else diffusers_state(modules, dtype)
    with atomic_file(path, replace=replace) as part:
        _save_checked(part, state, header, path.name)
    return path


def in_form(weights: PlainWeights, format: str, base: str) -> PlainWeights:
    """The adapters by the names that their layers have in a format.

    Args:
        weights: By the names of `atelier.lora.names`.
        format: "kohya", "diffusers" or "peft".
        base: `ss_base_model_version`, where it is known.

    Raises:
        AtelierError: the format has none for them.
    """
    if format == "peft" and any(map(of_other_network, weights)):
        raise AtelierError("Layers of networks other than Stable Diffusion's have no names here in PEFT's format.",
                           "Choose the format \"diffusers\", or keep \"kohya\", whose keys (diffusion_model.…) are "
                           "ComfyUI's own.")
    return diffusers_weights(weights, base) if format == "diffusers" else weights


def load_lora(path: Path) -> LoraWeights:
    """Read a LoRA file in any of the formats of `atelier.lora.formats`, or a PEFT folder.

    Raises:
        AtelierError: not a readable LoRA file, it holds no usable adapter, or a tensor in it is no part of one.
    """
    found = read_lora(path)
    left = [key for key in found.unmatched if not key.startswith(BUNDLED_PREFIX)]
    if left:
        kinds = other_kinds(left)
        raise AtelierError(f"{path.name}: {len(left)} of {found.keys} keys are not LoRA keys of a kind known here "
                           f"({f'{kinds}; ' if kinds else ''}first: {left[0]}).",
                           "Convert the file with Convert LoRA, which leaves them out, or with the program that made "
                           "it.")
    if found.unmatched:
        _log.warning("%s brings embeddings along, which are not used: only its LoRA is.", path.name)
    return found.weights


def read_lora(path: Path) -> LoraFile:
    """Read what is usable of a LoRA file or PEFT folder, and list the rest.

    Raises:
        AtelierError: not a readable LoRA file, or it holds no usable adapter.
    """
    return _read_peft(path) if path.is_dir() else parse_lora(read_tensors(path), path.name, read_metadata(path))


def parse_lora(state: Mapping[str, Tensor], origin: str, metadata: Mapping[str, str] | None = None) -> LoraFile:
    """What is usable of a LoRA's state dict, and the rest.

    Args:
        state: Tensors by key.
        origin: Where they come from, for messages.
        metadata: The header's string pairs.

    Raises:
        AtelierError: it holds no usable adapter, or a value in it is of a kind that no program writes.
    """
    metadata, left = metadata or {}, tuple(unmatched(state))
    if state and len(left) == len(state):
        kinds = other_kinds(left)
        raise AtelierError(f"{origin}: none of its {len(state)} keys belongs to a LoRA of Stable Diffusion "
                           f"({f'it looks like {kinds}; ' if kinds else ''}first: {left[0]}).",
                           "Choose a LoRA of Stable Diffusion 1, 2 or XL.")
    weights = scaled_by_header(read_state(state, origin=origin), metadata, origin)
    if state and not weights:
        raise AtelierError(f"{origin} has rank 0 in every layer: it would change nothing.", "Choose another LoRA.")
    check_usable(weights, origin)
    return LoraFile(weights, len(state), left, metadata)


def is_peft_folder(path: Path) -> bool:
    """Whether a folder holds PEFT adapters, its own or one for each component."""
    return any((folder / "adapter_config.json").is_file() for folder in (path, *(path / name for name in COMPONENTS)))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file or of a pickle that holds tensors alone, on the CPU.

    Raises:
        AtelierError: the file is missing, cut short or of another kind.
    """
    check_content(path)
    if path.suffix.lower() in PICKLES:
        return {key: entry.read() for key, entry in read_pickle(path).items()}
    try:
        with safe_open(path, framework="pt") as file:
            # Cloned out of the memory map: as long as one is open, Windows lets nobody replace the file.
            return {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118 (not a mapping)
    except FileNotFoundError as error:
        raise AtelierError(f"{path} does not exist.", "Choose an existing LoRA file.") from error
    except (SafetensorError, OSError) as error:
        raise AtelierError(f"{path} is not a readable safetensors file ({error}).",
                           "Download or train it again.") from error


def read_metadata(path: Path) -> dict[str, str]:
    """The header's string pairs of a safetensors file; a pickle has none."""
    if path.suffix.lower() in PICKLES:
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise AtelierError(f"{path} is not a readable safetensors file ({error}).",
                           "Choose another file.") from error


def _save_checked(part: Path, state: dict[str, Tensor], header: dict[str, str], name: str) -> None:
    part.write_bytes(_in_order(save(state, metadata=header)))
    written = read_tensors(part)
    if written.keys() != state.keys() or any(not torch.equal(written[key], state[key]) for key in state):
        raise AtelierError(f"{name} did not read back as it was written.", "Check the disk, then save again.")


def _in_order(data: bytes) -> bytes:
    """The same safetensors file with its metadata sorted: the library leaves their order to chance."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[end:]


def _save_peft(path: Path, weights: PlainWeights, header: dict[str, str], dtype: torch.dtype) -> Path:
    if path.exists() and not (path.is_dir() and (is_peft_folder(path) or not any(path.iterdir()))):
        raise AtelierError(f"{path} exists and is no PEFT folder; it was left alone.", "Choose another name.")
    if path.suffix.lower() in WEIGHT_ENDINGS:
        raise AtelierError(f"{path} has the ending of a file, and PEFT's format is a folder.",
                           "Choose a name without it, or another format.")
    components = [name for name in COMPONENTS if select(weights, name)]
    with atomic_folder(path) as part:
        for component in components:
            folder = part if components == ["unet"] else part / component
            folder.mkdir(exist_ok=True)
            _save_checked(folder / PEFT_WEIGHTS, peft_state(weights, component, dtype), header, path.name)
            write_json(folder / "adapter_config.json", _peft_config(weights, component))
    return path


def _peft_config(weights: PlainWeights, component: str) -> dict[str, object]:
    modules = {peft_path(with_text_model(name)): module for name, module in weights.items()
               if name.startswith(component + ".")}
    first = next(iter(modules.values()))
    ranks = {name: module.rank for name, module in modules.items() if module.rank != first.rank}
    alphas = {name: module.alpha for name, module in modules.items() if module.alpha != first.alpha}
    return {
        "peft_type": "LORA", "base_model_name_or_path": None, "bias": "none", "fan_in_fan_out": False,
        "inference_mode": True, "r": first.rank, "lora_alpha": first.alpha, "lora_dropout": 0.0,
        "target_modules": sorted(modules), "rank_pattern": ranks, "alpha_pattern": alphas,
        "use_dora": first.magnitude is not None, "use_rslora": False,
    }


def _read_peft(path: Path) -> LoraFile:
    if not is_peft_folder(path):
        raise AtelierError(f"{path} holds no adapter_config.json.",
                           "Choose a folder written by PEFT's save_pretrained, or a .safetensors file.")
    whole = not (path / "adapter_config.json").is_file()
    folders = {name: path / name for name in COMPONENTS if (path / name).is_dir()} if whole else {"": path}
    weights: LoraWeights = {}
    keys, left = 0, []
    for component, folder in folders.items():
        config, state = read_peft_config(folder), read_tensors(_peft_weights(folder))
        owner = component or _component_of(state)
        plain = read_state(state, component=owner, origin=path.name)
        weights = {**weights, **{name: config.scaled(name, module) for name, module in plain.items()}}
        keys += len(state)
        left += unmatched(state, component=owner)
    check_usable(weights, path.name)
    return LoraFile(weights, keys, tuple(left), {})


def _peft_weights(folder: Path) -> Path:
    pickle = (folder / PEFT_WEIGHTS).with_suffix(".bin")  # PEFT before 0.6
    return pickle if pickle.is_file() and not (folder / PEFT_WEIGHTS).is_file() else folder / PEFT_WEIGHTS


def _component_of(state: Mapping[str, Tensor]) -> str:
    """What a PEFT folder that does not say so was made for: a text encoder by its names, SDXL's second by its width."""
    for key, tensor in state.items():
        if "encoder.layers." in key and key.endswith(("q_proj.lora_A.weight", "q_proj.hada_w1_b")):
            return "text_encoder_2" if tensor.shape[1] == 1280 else "text_encoder"
    return "text_encoder" if any("encoder.layers." in key for key in state) else "unet"
