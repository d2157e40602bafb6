"""A machine without a network."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch


@contextmanager
def no_network() -> Iterator[None]:
    """Fail whatever tries to look up or to reach another machine."""
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError(f"reached for the network: {args}")

    with patch.object(socket, "getaddrinfo", refuse), patch.object(socket.socket, "connect", refuse):
        yield
