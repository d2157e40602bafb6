"""Open a model on disk: read its layout once and compute a fingerprint of its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..checkpoint.entry import Entry, FileRange, tensor_bytes
from ..checkpoint.header import TORCH_NAMES
from ..errors import AtelierError
from ..progress import Progress
from .handle import DiffusersModel
from .layout import FileState, ModelLayout, read_layout
from .lazy_tensor import LazyTensor
from .noise_schedule import read_noise_schedule
from .prediction import read_prediction

_BLOCK = 1 << 20


def open_model(path: Path, *, prediction_type: str = "auto", progress: Progress | None = None) -> DiffusersModel:
    """Open a single-file checkpoint or a diffusers folder. Nothing is copied; the weights are read once, for the
    fingerprint.

    Args:
        path: The `.safetensors` or `.ckpt` file, or the folder.
        prediction_type: "auto", "epsilon" or "v_prediction". No SD2 file says which it is: see `models.prediction`.
        progress: Receives progress while the weights are read; may interrupt.

    Raises:
        AtelierError: the path is no model that can be opened.
    """
    path = Path(path)
    if not path.exists():
        raise AtelierError(f"{path} does not exist.", "Choose an existing checkpoint or diffusers folder.")
    layout = read_layout(path)
    # Decided once: from here on the prediction type counts as chosen, and zero terminal SNR needs v-prediction.
    prediction = read_prediction(layout, read_prediction(layout, prediction_type).type)
    state = layout.file_state()
    scale, shift = _latent_scale(layout)
    return DiffusersModel(
        path=layout.path, family=layout.family.key, prediction_type=prediction.type,
        dtype=TORCH_NAMES[unet_dtype(layout)],
        fingerprint=_fingerprint(layout, state, progress or Progress()),
        noise_schedule=read_noise_schedule(layout, prediction), latent_scale=scale, latent_shift=shift,
        opened_layout=None if layout.holds_weights else layout, opened_state=state)


def _latent_scale(layout: ModelLayout) -> tuple[float, float]:
    """Scale and shift of the latents, from the VAE's configuration; without a VAE, the family's."""
    vae = layout.components.get("vae")
    config = vae.config if vae is not None else {}
    return float(config.get("scaling_factor") or layout.family.latent_scale), float(config.get("shift_factor") or 0.0)


def unet_dtype(layout: ModelLayout) -> str:
    """The dtype that most of the UNet's numbers have, as safetensors names it."""
    counts: dict[str, int] = {}
    for tensor in layout.unet.tensors.values():
        counts[tensor.dtype] = counts.get(tensor.dtype, 0) + tensor.count
    return max(counts, key=lambda dtype: counts[dtype])


def _fingerprint(layout: ModelLayout, state: FileState, progress: Progress) -> str:
    """SHA-256 over names, types, shapes and bytes in diffusers' terms, so that a file and the folder made of it
    agree."""
    tensors = [(f"{component.folder}.{name}", tensor) for component in layout.components.values()
               for name, tensor in component.tensors.items()]
    if state not in _known:
        _known[state] = _digest(tensors, progress)
    return _known[state]


_known: dict[FileState, str] = {}
"""Fingerprints by the state of the files that they were read from."""


def _digest(tensors: Sequence[tuple[str, LazyTensor]], progress: Progress) -> str:
    lines: list[str] = []
    done = 0
    progress.phase("reading", max(1, sum(map(_megabytes, tensors))))
    with ThreadPoolExecutor() as pool:
        work = [pool.submit(_line, named) for named in tensors]
        try:
            for named, line in zip(tensors, work, strict=True):
                lines.append(line.result())
                done += _megabytes(named)
                progress.advance(done)
                progress.check()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # or it would read all the rest
            raise
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def _megabytes(named: tuple[str, LazyTensor]) -> int:
    return sum(part.size for part in named[1].parts) // 1_000_000


def _line(named: tuple[str, LazyTensor]) -> str:
    name, tensor = named
    digest = hashlib.sha256()
    if tensor.transposed:
        digest.update(tensor_bytes(tensor.read()))
    else:
        for part in tensor.parts:
            _update(digest, part)
    return f"{name} {tensor.dtype} {list(tensor.shape)} {digest.hexdigest()}\n"


def _update(digest: hashlib._Hash, part: Entry) -> None:
    if not isinstance(part.source, FileRange):
        digest.update(tensor_bytes(part.read()))
        return
    with part.source.path.open("rb", buffering=0) as file:
        file.seek(part.source.begin)
        left, block = part.size, memoryview(bytearray(min(_BLOCK, part.size)))
        while left:
            count = file.readinto(block[:min(left, len(block))])
            if not count:
                raise AtelierError(f"{part.source.path} became shorter while it was read.", "Run again.")
            digest.update(block[:count])
            left -= count
