"""Credentials by name: read keys, restrict each to its addresses, and mask it in every text.

A graph holds the *name* of a credential. Its key comes from the environment variable of that name or from
`credentials.toml` in the user's folder, which only the user may read (mode 0600, where the file system has modes):

    [MY_SERVER_KEY]
    key = "…"                                   # may be left out: then the environment variable is read
    base_urls = ["https://llm.example.org/v1"]  # the only addresses the key is ever sent to

The addresses of well-known services are built in. Only they and this file bind a name to an
address, so an untrusted workflow can name any credential and any server without a key leaking.
"""

from __future__ import annotations

import logging
import os
import re
import stat
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import AtelierError
from .endpoints import ENDPOINTS, NO_CREDENTIAL, plain_url

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_log = logging.getLogger("atelier")

BOUND: dict[str, tuple[str, ...]] = {
    **{e.credential: (e.base_url,) for e in ENDPOINTS.values() if e.credential != NO_CREDENTIAL},
    "GEMINI_API_KEY": (ENDPOINTS["Gemini"].base_url,),
}
"""Credential names of well-known services and the addresses each may be sent to."""

NAME = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
MASK_RUN = 8
"""Runs of this many consecutive characters of a key are masked wherever they appear.

Shorter values are placeholders for local servers ("none", "ollama"); masking them would damage prompts. Real keys have
30 characters and more.
"""


@dataclass(frozen=True)
class Credential:
    """A name and its key. `repr` omits the key, and `redact` removes it from external texts."""

    name: str
    secret: str = field(repr=False, default="")

    def redact(self, text: str) -> str:
        """`text` with the key, and every run of at least eight of its characters, replaced by `[NAME]`."""
        runs = {self.secret[i:i + MASK_RUN] for i in range(len(self.secret) - MASK_RUN + 1)}
        if not runs:
            return text
        hidden = bytearray(len(text))
        for start in range(len(text) - MASK_RUN + 1):
            if text[start:start + MASK_RUN] in runs:
                hidden[start:start + MASK_RUN] = b"\1" * MASK_RUN
        shown: list[str] = []
        for index, char in enumerate(text):
            if not hidden[index]:
                shown.append(char)
            elif index == 0 or not hidden[index - 1]:
                shown.append(f"[{self.name}]")
        return "".join(shown)


ANONYMOUS = Credential(NO_CREDENTIAL)
"""For endpoints that need no key."""


@dataclass(frozen=True)
class CredentialStore:
    """Looks up credentials; reads the file each time, so edits take effect at once."""

    file: Path | None = None
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)

    def names(self) -> list[str]:
        """The names a user can choose from, built-in ones first, whether or not they have a key."""
        try:
            own = list(self._entries())
        except AtelierError:
            own = []  # A broken file is reported when a key is needed, not when names are listed.
        return [NO_CREDENTIAL, *BOUND, *(name for name in own if name not in BOUND)]

    def get(self, name: str, base_url: str) -> Credential:
        """The credential called `name`, if its key may be sent to `base_url`.

        Raises:
            AtelierError: the name is invalid, has no key, or is not bound to that address. No message contains a key,
                nor the text typed in place of a name.
        """
        if name == NO_CREDENTIAL:
            return ANONYMOUS
        if not NAME.fullmatch(name):
            raise AtelierError("The credential is not a name: names are capital letters, digits and underscores.",
                               "Choose the name of an environment variable such as OPENAI_API_KEY. If you pasted a key "
                               "there, remove it, save the workflow again, and have the key replaced.")
        base_url = plain_url(base_url)
        entry = self._entry(name, base_url)
        allowed = _addresses(name, entry) or BOUND.get(name, ())
        if not any(_is_below(base_url, address) for address in allowed):
            raise AtelierError(f"The credential {name} may not be sent to {base_url}.", self._binding_help(name))
        secret = str(entry.get("key") or self.environ.get(name, "")).strip()
        if not secret:
            raise AtelierError(f"The credential {name} has no key.",
                               f"Set the environment variable {name} before starting, or write the key to "
                               f"{self.file or 'credentials.toml'}.")
        if not secret.isascii() or not secret.isprintable() or " " in secret:
            raise AtelierError(f"The key of {name} holds characters that no key has (spaces, line breaks, accents).",
                               "Copy it again, without quotes.")
        return Credential(name, secret)

    def _entry(self, name: str, base_url: str) -> dict[str, Any]:
        """The file's entry; empty if the file cannot be used and is not needed: a known service, a key elsewhere."""
        try:
            return self._entries().get(name, {})
        except AtelierError as error:
            known = any(_is_below(base_url, address) for address in BOUND.get(name, ()))
            if not known or not self.environ.get(name, "").strip():
                raise
            _log.warning("%s The key of %s is taken from the environment.", error, name)
            return {}

    def _entries(self) -> dict[str, dict[str, Any]]:
        if self.file is None or not self.file.is_file():
            return {}
        self._check_private(self.file)
        try:
            table = tomllib.loads(self.file.read_text(encoding="utf-8-sig"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError):
            # The parser's message may quote the line, and with it a key.
            raise AtelierError(f"{self.file} is not valid TOML.", 'Write one [NAME] per credential, then key = "…" and '
                               'base_urls = ["https://…"].') from None
        except OSError as error:
            raise AtelierError(f"{self.file} cannot be read: {error.strerror}.", "Make it your own file.") from None
        return {name: entry for name, entry in table.items() if isinstance(entry, dict) and NAME.fullmatch(name)}

    @staticmethod
    def _check_private(file: Path) -> None:
        # A mode does not show Windows' access control lists; there the user's profile folder protects the file.
        if os.name != "posix" or not _open_to_others(file):
            return
        if _modes_can_be_set(file):
            raise AtelierError(f"{file} can be read by other users of this machine.", f"Run: chmod 600 '{file}'")
        _warn_once(file)

    def _binding_help(self, name: str) -> str:
        if self.file is None:
            return "Choose the credential that belongs to the address."
        return (f"Choose the credential that belongs to the address. If you trust that server with this key, list its "
                f"address as base_urls under [{name}] in {self.file}.")


@cache
def _warn_once(file: Path) -> None:
    # The list of names is asked for whenever the editor opens.
    _log.warning("%s can be read by other users of this machine, and its mode cannot be changed here. "
                 "Where others use this machine, keep keys in environment variables.", file)


def _open_to_others(path: Path) -> bool:
    return bool(stat.S_IMODE(path.stat().st_mode) & 0o077)


def _modes_can_be_set(file: Path) -> bool:
    """Whether this user could close the file: not on Windows' drives in WSL, shared folders and read-only mounts."""
    if os.geteuid() not in (0, file.stat().st_uid):
        return False
    try:
        with tempfile.NamedTemporaryFile(dir=file.parent) as probe:  # created with mode 0600
            return not _open_to_others(Path(probe.name))
    except OSError:
        return False


def _addresses(name: str, entry: Mapping[str, Any]) -> tuple[str, ...]:
    listed = entry.get("base_urls", [])
    if not isinstance(listed, list) or not all(isinstance(address, str) for address in listed):
        raise AtelierError(f"base_urls of {name} is not a list of addresses.", 'Write base_urls = ["https://…"].')
    return tuple(plain_url(address) for address in listed)


def _is_below(base_url: str, allowed: str) -> bool:
    """Same scheme, host and port, and a path equal to or below the allowed one."""
    return base_url == allowed or base_url.startswith(allowed + "/")
