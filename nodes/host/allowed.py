"""What a graph may reach. Anybody may have written it, so it reads and writes only ComfyUI's own folders, and asks only
the built-in language model services and this machine's own, besides what the server's owner lists.

The list is `allowed.toml` in the pack's folder below the host's user folder; no node writes it:

    folders = ["D:/pictures", "/mnt/photos"]      # and everything below them
    addresses = ["https://llm.example.org/v1"]    # and every path below them
"""

from __future__ import annotations

import ipaddress
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

import folder_paths

from ...atelier.errors import AtelierError
from ...atelier.fields import check_text
from ...atelier.prompts.endpoints import ENDPOINTS, plain_url
from .work_folder import work_folder

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_NEVER = ("custom_nodes", "configs")
"""Kinds of the host's folders that hold code or settings, not models."""


def typed_path(text: str) -> Path:
    """The path that a person typed: quotes, as file managers copy them, go, and `~` is the server's home.

    Raises:
        AtelierError: no path can hold the text.
    """
    check_text("The path", text)
    return Path(os.path.expanduser(text.strip().strip('"')))  # noqa: PTH111 - the other fails on unknown users


def check_read(folder: Path) -> Path:
    """`folder`, if a graph may read it: ComfyUI's input, output, datasets and model folders, and listed ones.

    Links are resolved first, in the folder's path as in the roots. The folder need not exist.

    Raises:
        AtelierError: it lies elsewhere, or the owner's list cannot be read.
    """
    return _check(folder, [folder_paths.get_input_directory(), folder_paths.get_output_directory(), *_model_folders()],
                  "read")


def check_written(path: Path) -> Path:
    """`path`, if a graph may write a file or folder of that path: below ComfyUI's output and model folders, the pack's
    own, and listed ones. A link on the way may lead out of them.

    Raises:
        AtelierError: it lies elsewhere, or the owner's list cannot be read.
    """
    return _check(path, [folder_paths.get_output_directory(), *_model_folders(), str(work_folder(""))], "write to")


def check_added(path: Path) -> Path:
    """`path`, if the browser may add a file of that path: below ComfyUI's input folder, and listed ones. A link on the
    way may lead out of them.

    Raises:
        AtelierError: it lies elsewhere, or the owner's list cannot be read.
    """
    return _check(path, [folder_paths.get_input_directory()], "write to")


def check_beside_pictures(folder: Path) -> Path:
    """`folder`, if a graph may write text files beside the pictures in it: ComfyUI's input and output folders, and
    listed ones.

    Raises:
        AtelierError: it lies elsewhere, or the owner's list cannot be read.
    """
    return _check(folder, [folder_paths.get_input_directory(), folder_paths.get_output_directory()], "write to")


def listed_folders() -> list[str]:
    """The folders on the owner's list, as they are written there.

    Raises:
        AtelierError: the list cannot be read.
    """
    return _listed("folders")


def check_address(url: str) -> str:
    """`url` in its plain spelling, if a graph may send requests there: built-in services, loopback, and listed ones.

    Raises:
        AtelierError: it is another address or none at all, or the owner's list cannot be read.
    """
    url = plain_url(url)
    if _is_loopback(url) or _below(url, (endpoint.base_url for endpoint in ENDPOINTS.values())):
        return url
    listed = _listed("addresses")
    if _below(url, map(plain_url, listed)):
        return url
    raise AtelierError(f"A graph may not send requests to {url}: it is neither a built-in service nor on this machine.",
                       _how("addresses", listed, url))


def _check(path: Path, roots: Iterable[str], verb: str) -> Path:
    real = os.path.realpath(path)
    if any(_inside(real, root) for root in roots):
        return path
    listed = _listed("folders")
    if any(_inside(real, root) for root in listed):
        return path
    linked = f" (a link to {real})" if real != os.path.normpath(path) else ""
    target = real if verb == "read" or not Path(path).suffix else str(Path(real).parent)
    raise AtelierError(f"A graph may not {verb} {path}{linked}: it lies outside ComfyUI's folders.",
                       _how("folders", listed, target))


def _inside(real: str, root: str) -> bool:
    root = os.path.realpath(Path(root).expanduser())
    real, root = os.path.normcase(real), os.path.normcase(root)
    try:
        return os.path.commonpath([real, root]) == root
    except ValueError:  # on different drives
        return False


def _model_folders() -> list[str]:
    return [folder for kind in folder_paths.folder_names_and_paths if kind not in _NEVER
            for folder in folder_paths.get_folder_paths(kind)]


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _below(url: str, addresses: Iterable[str]) -> bool:
    return any(url == address or url.startswith(f"{address}/") for address in addresses)


def _listed(key: str) -> list[str]:
    file = work_folder("allowed.toml")
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise AtelierError(f"The list of allowed folders and addresses {file} cannot be read: {error}.",
                           'Write lines such as folders = ["D:/pictures"], with / or doubled \\ in paths.') from None
    entries = table.get(key, [])
    # An empty entry would name the server's current folder.
    if not isinstance(entries, list) or not all(isinstance(entry, str) and entry.strip() for entry in entries):
        raise AtelierError(f"{key} in {file} is {entries!r}.", f'Write a list of texts: {key} = ["…", "…"].')
    if key == "folders" and (relative := next((e for e in entries if not Path(e).expanduser().is_absolute()), None)):
        raise AtelierError(f"The folder {relative!r} in {file} is no full path.", "Write the whole path.")
    return entries


def _how(key: str, listed: list[str], new: str) -> str:
    # Posix separators: a backslash would have to be doubled in TOML.
    entry = Path(new).as_posix() if key == "folders" else new
    line = f"{key} = {json.dumps([*listed, entry], ensure_ascii=False)}"
    return f"If you trust it and this is your server, write this line into {work_folder('allowed.toml')}: {line}"
