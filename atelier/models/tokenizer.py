"""CLIP's tokenizer, built from a list of merges that is found on the machine.

Every Stable Diffusion text encoder uses the same byte-pair vocabulary (Radford et al. 2021; 49408 entries). It follows
from the merges alone: the 256 byte symbols, the same at the end of a word, one entry for each of 48894 merges, and two
special tokens. The merges come from the folder given to `use_tokenizer` (the host brings one), or from the open_clip
package.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import AtelierError, MissingPackage
from ..files import write_text
from .tokenizer_files import checked_files

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

LENGTH = 77
"""Tokens of a prompt, with the start and the end."""
MERGES = 48894
START, END = "<|startoftext|>", "<|endoftext|>"

_folder: Path | None = None


def use_tokenizer(folder: Path | None) -> None:
    """Take the merges from `folder/merges.txt` from now on; None returns to the open_clip package.

    Raises:
        AtelierError: the folder has no merges.txt.
    """
    global _folder
    if folder is not None and not (folder / "merges.txt").is_file():
        raise AtelierError(f"{folder} holds no merges.txt.", "Give the folder of a CLIP tokenizer.")
    _folder = folder


def read_merges() -> list[str]:
    """CLIP's 48894 merges in order, each two symbols with a space between.

    Raises:
        AtelierError: no source of merges is installed, or the one found is damaged.
    """
    if _folder is not None:
        path = _folder / "merges.txt"
        lines = path.read_text(encoding="utf-8").split("\n")
    else:
        spec = importlib.util.find_spec("open_clip")
        package = Path(next(iter(spec.submodule_search_locations or ()), "")) if spec else Path()
        path = package / "bpe_simple_vocab_16e6.txt.gz"
        if spec is None or not path.is_file():
            raise MissingPackage("open_clip_torch", "CLIP's tokenizer")
        lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")
    # The first line is a version note; open_clip's list goes on with merges that CLIP never used.
    merges = lines[1:MERGES + 1]
    if len(merges) < MERGES or any(merge.count(" ") != 1 for merge in merges):
        raise AtelierError(f"{path} is not CLIP's list of merges.", "Install open_clip_torch again.")
    return merges


def vocabulary(merges: list[str]) -> dict[str, int]:
    """The 49408 entries that follow from the merges, in CLIP's numbering."""
    symbols = byte_symbols()
    merged = (merge.replace(" ", "") for merge in merges)
    entries = [*symbols, *(symbol + "</w>" for symbol in symbols), *merged, START, END]
    return {entry: number for number, entry in enumerate(entries)}


def write_tokenizer(folder: Path, pad_token: str = END) -> None:
    """Write a tokenizer folder as transformers and the host read it."""
    merges = read_merges()
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": LENGTH, "pad_token": pad_token,
              "bos_token": START, "eos_token": END, "unk_token": END, "add_prefix_space": False, "do_lower_case": True,
              "errors": "replace"}
    special = {key: config[key] for key in ("bos_token", "eos_token", "pad_token", "unk_token")}
    write_text(folder / "vocab.json", json.dumps(vocabulary(merges), ensure_ascii=False))
    write_text(folder / "merges.txt", "\n".join(["#version: 0.2", *merges, ""]))
    write_text(folder / "tokenizer_config.json", _pretty(config))
    write_text(folder / "special_tokens_map.json", _pretty(special))


def load_tokenizer(pad_token: str = END, folder: Path | None = None) -> CLIPTokenizer:
    """The tokenizer, ready to use: a model folder's own if given, else one built from the merges.

    Raises:
        AtelierError: the folder's own is damaged, or no source of merges is installed.
    """
    return _checked(folder) if folder is not None else _built(pad_token, _folder)


@lru_cache(maxsize=4)
def _built(pad_token: str, merges_folder: Path | None) -> CLIPTokenizer:
    # By way of files, because transformers 4 and 5 agree on files and on nothing else. The second argument is part of
    # the cache's key.
    with tempfile.TemporaryDirectory(prefix="atelier-tokenizer-") as folder:
        write_tokenizer(Path(folder), pad_token)
        return _load_folder(Path(folder))


def _checked(folder: Path) -> CLIPTokenizer:
    """A stranger's tokenizer, from a copy that holds nothing unchecked."""
    with tempfile.TemporaryDirectory(prefix="atelier-tokenizer-") as copy:
        for name, content in checked_files(folder).items():
            write_text(Path(copy) / name, content)
        return _load_folder(Path(copy))


def _load_folder(folder: Path) -> CLIPTokenizer:
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2) + "\n"


def byte_symbols() -> dict[str, int]:
    """The byte that each printable character of the vocabulary stands for, in CLIP's order: printable Latin-1 as
    itself, then the rest moved above 255 (GPT-2)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    moved = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(moved)}
