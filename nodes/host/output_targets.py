"""Which nodes a prompt is run for.

The host runs every output node whose own inputs are valid. Image Folder and Convert Checkpoint are output nodes so that
they can be tried alone, and a prompt whose training is refused, say for a missing model, would run them and count as
completed. So in a prompt that trains, what the training depends on is run for the training only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from . import web_server

_TRAINER = "AtelierTrainLora"
_PACK = "Atelier"
_TARGETS = "partial_execution_targets"
"""The host's name for the output nodes that the editor asks to run; without it, all of them."""


def limit_targets() -> None:
    """Have the server apply `without_sources` to every prompt before it validates it."""
    web_server.on_prompt(without_sources)


def without_sources(request: dict[str, Any]) -> dict[str, Any]:
    """The body of a request to queue a prompt, in which the pack's nodes that a training depends on are no targets.

    A request that names its targets is left as it is, and so is one that is no prompt: the server says what is wrong.
    """
    prompt = request.get("prompt")
    if not isinstance(prompt, dict) or not all(isinstance(node, dict) for node in prompt.values()):
        return request
    trainers = [name for name, node in prompt.items() if node.get("class_type") == _TRAINER]
    sources = {name for name in _upstream(prompt, trainers) if str(prompt[name].get("class_type")).startswith(_PACK)}
    sources -= set(trainers)
    if not sources or request.get(_TARGETS) is not None:
        return request
    # The host takes the output nodes among these.
    return {**request, _TARGETS: [name for name in prompt if name not in sources]}


def _upstream(prompt: Mapping[str, Mapping[str, Any]], names: Iterable[str]) -> set[str]:
    """The nodes that `names` depend on, at any distance."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        inputs = prompt[waiting.pop()].get("inputs")
        links = [value for value in inputs.values() if isinstance(value, list)] if isinstance(inputs, dict) else []
        for source in (link[0] for link in links if link and isinstance(link[0], str)):
            if source in prompt and source not in found:
                found.add(source)
                waiting.append(source)
    return found
