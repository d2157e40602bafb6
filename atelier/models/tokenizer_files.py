"""Read the tokenizer that comes with a model: its vocabulary, merges and special tokens, checked before use.

The library that tokenizes takes these files on trust: it fails in ways of its own on the smallest damage, so only what
was checked here is handed to it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from reprlib import repr as short
from typing import Any

from ..errors import AtelierError
from ..json_files import read_json_object
from ..limits import DEFAULT, check_characters, read_limited

MOST_TOKENS = 1_000_000
_DO = "Download or copy the model's tokenizer again."
_SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")
_SETTINGS: dict[str, type] = {"add_prefix_space": bool, "do_lower_case": bool, "errors": str, "model_max_length": int}


def checked_files(folder: Path) -> dict[str, str]:
    """What to hand to transformers: contents by file name.

    Vocabulary and merges come from `vocab.json` and `merges.txt`, else from `tokenizer.json`.

    Raises:
        AtelierError: a file is missing or damaged, or the files do not fit together; the message names file and value.
    """
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        source, vocabulary = folder / "vocab.json", read_json_object(folder / "vocab.json", _DO)
        merges = _merges_of_text(folder / "merges.txt")
    else:
        source = folder / "tokenizer.json"
        model = read_json_object(source, _DO).get("model")
        if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict):
            raise AtelierError(f"{source} holds no vocabulary.", _DO)
        vocabulary, merges = model["vocab"], model.get("merges")
    _check_vocabulary(source, vocabulary)
    pairs = _pairs(source, merges, vocabulary)
    files = {"vocab.json": json.dumps(vocabulary, ensure_ascii=False),
             "merges.txt": "\n".join(["#version: 0.2", *map(" ".join, pairs), ""])}
    added = _added(folder / "added_tokens.json")
    known = {*vocabulary, *added}
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).is_file():
            values = _settings(folder / name, known)
            files[name] = json.dumps(values | ({"tokenizer_class": "CLIPTokenizer"} if "config" in name else {}))
    if added:
        files["added_tokens.json"] = json.dumps(added)
    return files


def _check_vocabulary(source: Path, vocabulary: Mapping[str, Any]) -> None:
    if not 0 < len(vocabulary) <= MOST_TOKENS:
        raise AtelierError(f"{source} lists {len(vocabulary)} tokens.", _DO)
    seen: dict[int, str] = {}
    for token, number in vocabulary.items():
        if type(number) is not int or not 0 <= number < MOST_TOKENS:
            raise AtelierError(f"{source}: the number of {short(token)} is {short(number)}.", _DO)
        if number in seen:
            raise AtelierError(f"{source} gives {short(token)} and {short(seen[number])} the number {number}.", _DO)
        seen[number] = token


def _merges_of_text(path: Path) -> list[str]:
    try:
        text = read_limited(path, DEFAULT).decode("utf-8-sig")
        check_characters(text)
    except OSError as error:
        raise AtelierError(f"{path} cannot be read: {error.strerror or error}.", _DO) from error
    except UnicodeDecodeError as error:
        raise AtelierError(f"{path} is not UTF-8 text.", _DO) from error
    except ValueError as error:
        raise AtelierError(f"{path} is not readable: {error}.", _DO) from error
    # Not splitlines: symbols of the vocabulary are line ends to it.
    return [line for line in text.replace("\r\n", "\n").split("\n") if line and not line.startswith("#version")]


def _pairs(source: Path, merges: Any, vocabulary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The merges as pairs, each of two symbols whose join is a token too."""
    if not isinstance(merges, list) or len(merges) > MOST_TOKENS:
        raise AtelierError(f"{source} holds no list of merges.", _DO)
    pairs = []
    for merge in merges:
        parts = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(part, str) for part in parts):
            raise AtelierError(f"The merges of {source.parent} hold {short(merge)}, which is no pair of symbols.", _DO)
        left, right = parts
        missing = next((part for part in (left, right, left + right) if part not in vocabulary), None)
        if missing is not None:
            raise AtelierError(f"The merges of {source.parent} hold {short(merge)}, but the vocabulary has no "
                               f"{short(missing)}.", _DO)
        pairs.append((left, right))
    return pairs


def _added(path: Path) -> dict[str, int]:
    if not path.is_file():
        return {}
    added = read_json_object(path, _DO)
    if added:
        _check_vocabulary(path, added)
    return added


def _settings(path: Path, known: set[str]) -> dict[str, Any]:
    """The settings that CLIP's tokenizer takes; others are passed by."""
    values = read_json_object(path, _DO)
    kept: dict[str, Any] = {}
    for name in _SPECIAL:
        token = values.get(name)
        content = token.get("content") if isinstance(token, dict) else token
        if token is None:
            continue
        if not isinstance(content, str) or content not in known:
            raise AtelierError(f"{path}: {name} is {short(token)}, which is no token of the vocabulary.", _DO)
        kept[name] = content
    for name, kind in _SETTINGS.items():
        value = values.get(name)
        if value is None:
            continue
        if type(value) is not kind and not (kind is int and type(value) is float and value == value):
            raise AtelierError(f"{path}: {name} is {short(value)}.", _DO)
        if kind is int and value < 1:
            raise AtelierError(f"{path}: {name} is {short(value)}.", _DO)
        kept[name] = value
    return kept
