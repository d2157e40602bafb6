"""The host's web server: texts on nodes, events for the editor, routes, and prompts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def send_text(text: str, node: str) -> None:
    """Write `text` on the running node with this execution id."""
    server = _server()
    if server is not None:
        server.send_progress_text(text, node)


def send_event(name: str, data: dict[str, Any]) -> None:
    """Send an event to every open editor: the one that queued the prompt may have been reloaded as another client."""
    server = _server()
    if server is not None:
        server.send_sync(name, data)


def route_table() -> Any:
    """The host's aiohttp route table, which a pack may extend while it loads; None where there is no server."""
    server = _server()
    return None if server is None else server.routes


def on_prompt(change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Have the server apply `change` to the body of every request to queue a prompt."""
    server = _server()
    if server is not None:
        server.add_on_prompt_handler(change)


def _server() -> Any:
    from server import PromptServer

    # Tests and scripts import the host's modules without starting a server.
    return getattr(PromptServer, "instance", None)


