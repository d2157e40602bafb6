"""Where the host's MODEL, CLIP and VAE come from: their files, and what was done to them since."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ....atelier.errors import AtelierError
from ....atelier.progress import Progress

_BLOCK = 1 << 22


def files_of(patcher: Any, what: str) -> list[Path]:
    """The files that one of the host's patchers was loaded from.

    Raises:
        AtelierError: it was made in memory, or by a loader that does not say from what.
    """
    init = getattr(patcher, "cached_patcher_init", None)
    found = [] if init is None else [path for path in map(Path, _texts(init[1])) if path.is_file()]
    if not found:
        raise AtelierError(f"There is no file behind this {what}: it was merged or changed in memory.",
                           "Connect the loader itself (Load Checkpoint, Load Diffusion Model, Load CLIP, Load VAE), or "
                           "save the merged model and load the file.")
    return found


def _texts(values: Any) -> Iterator[str]:
    """The strings among a loader's arguments, in lists too; not those of dictionaries, which are options."""
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, list | tuple):
            yield from _texts(value)


def refuse_patches(patcher: Any, what: str) -> None:
    """Refuse a model that nodes have changed since it was loaded: training starts from its file.

    A patched noise schedule (such as Model Sampling Flux) is no change of the weights; it is trained with.

    Raises:
        AtelierError: it names the kind of change.
    """
    options = patcher.model_options.get("transformer_options", {})
    found = [name for name, there in (
        ("a LoRA or other weights", patcher.patches or patcher.hook_patches or patcher.weight_wrapper_patches),
        ("code put into its layers", patcher.injections),
        ("patches of its attention or blocks", any(map(options.get, ("patches", "patches_replace", "wrappers")))
         or any(wrappers for kind in patcher.wrappers.values() for wrappers in kind.values())),
        ("a wrapper of its network", patcher.model_options.get("model_function_wrapper")),
        ("replaced parts", [name for name in patcher.object_patches if name not in KEPT_PATCHES]),
    ) if there]
    if found:
        raise AtelierError(f"This {what} was changed after it was loaded: {', '.join(found)}.",
                           "Connect the loader itself; what a node adds to a model cannot be trained on.")


KEPT_PATCHES = ("model_sampling", "manual_cast_dtype")
"""Replaced parts that training respects, or that the host's own loaders put: the arithmetic type of a text encoder."""


def fingerprint(files: list[Path], options: object, progress: Progress) -> str:
    """Hex digest of the files' content and of the options that they are loaded with; each is read once a session."""
    digest = hashlib.sha256(json.dumps(options, default=str, sort_keys=True).encode())
    for path in files:
        digest.update(_content(path, progress).encode())
    return digest.hexdigest()


def _content(path: Path, progress: Progress) -> str:
    state = path.stat()
    key = (str(path), state.st_size, state.st_mtime_ns)
    if key not in _known:
        progress.phase("reading", max(1, state.st_size // 1_000_000))
        digest, done = hashlib.sha256(), 0
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
                done += len(block)
                progress.check()
                progress.advance(done // 1_000_000)
        _known[key] = digest.hexdigest()
    return _known[key]


_known: dict[tuple[str, int, int], str] = {}
"""Digests by path, size and time of change."""
