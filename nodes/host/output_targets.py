"""Which nodes a prompt is run for.

The host runs every output node whose own inputs are valid. Image Folder and Convert Checkpoint are output nodes so that
they can be tried alone, and a prompt whose training is refused, say for a missing model, would run them and count as
completed. So where a training is refused, what it depends on is not run for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from . import web_server

_TRAINER = "AtelierTrainLora"
_PACK = "Atelier"
_TARGETS = "partial_execution_targets"
"""The host's name for the output nodes that the editor asks to run; without it, all of them."""


def limit_targets() -> None:
    """Have the server apply `without_sources` to every prompt before it validates it."""
    web_server.on_prompt(without_sources)


def without_sources(request: dict[str, Any], is_valid: Callable[[dict[str, Any], str], bool] | None = None
                    ) -> dict[str, Any]:
    """The body of a request to queue a prompt, in which those nodes of the pack are no targets that a refused training
    depends on.

    A request that names its targets is left as it is, and so is one that is no prompt: the server says what is wrong.

    Args:
        request: The body.
        is_valid: Whether the host would run a node of a prompt; by default the host is asked.
    """
    prompt = request.get("prompt")
    if (not isinstance(prompt, dict) or not all(isinstance(node, dict) for node in prompt.values())
            or request.get(_TARGETS) is not None):
        return request
    is_valid = is_valid or _is_valid
    trainers = [name for name, node in prompt.items() if node.get("class_type") == _TRAINER]
    refused = [name for name in trainers if not is_valid(prompt, name)]
    sources = {name for name in _upstream(prompt, refused) if str(prompt[name].get("class_type")).startswith(_PACK)}
    sources.difference_update(trainers)
    if not sources:
        return request
    # The host takes the output nodes among these.
    return {**request, _TARGETS: [name for name in prompt if name not in sources]}


def _is_valid(prompt: dict[str, Any], node: str) -> bool:
    import execution

    validation = execution.validate_prompt("", prompt, [node])
    # The server calls this function where it cannot wait. Nor does the host's validation, unless some pack's does.
    try:
        validation.send(None)
    except StopIteration as done:
        return done.value[0]
    validation.close()
    return True


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
