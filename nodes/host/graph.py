"""The running graph: its metadata, nodes that expand into others, blocked outputs, and the host's samplers."""

from __future__ import annotations

import json
from typing import Any

from comfy_execution.utils import get_executing_context


def keeps_metadata() -> bool:
    """Whether pictures may say how they were made: unless the host was started with `--disable-metadata`."""
    from comfy.cli_args import args

    return not args.disable_metadata


def nodes(node: Any) -> dict[str, Any]:
    """The running graph in API format; empty where the host does not tell.

    Args:
        node: The running node's class; it must be an output node.
    """
    return (node.hidden.prompt if node.hidden else None) or {}


def metadata(node: Any) -> dict[str, str]:
    """The metadata that the host saves with a picture: prompt and workflow, unless the user switched it off.

    Args:
        node: The running node's class; it must be an output node.
    """
    if not keeps_metadata() or node.hidden is None:
        return {}
    values = {"prompt": node.hidden.prompt, **(node.hidden.extra_pnginfo or {})}
    return {name: json.dumps(value) for name, value in values.items() if value is not None}


def running_node() -> tuple[str, str]:
    """(prompt id, execution id) of the node that runs in this thread; empty outside a run."""
    context = get_executing_context()
    return (context.prompt_id, context.node_id) if context else ("", "")


def workflow_id(node: Any) -> str:
    """The id that the editor gave the running graph; empty for a graph that was not queued by an editor.

    Args:
        node: The running node's class; it must be an output node.
    """
    extra = (node.hidden.extra_pnginfo if node.hidden else None) or {}
    return str((extra.get("workflow") or {}).get("id") or "")


def graph_builder() -> Any:
    """The host's builder for a node that expands into others: `node(class, **inputs)`, `out(slot)`, `finalize()`."""
    from comfy_execution.graph_utils import GraphBuilder

    return GraphBuilder()


def blocked_output() -> Any:
    """Value of an output that has none this time: the host silently skips the nodes that need it."""
    from comfy_execution.graph_utils import ExecutionBlocker

    return ExecutionBlocker(None)


def sampler_names() -> list[str]:
    """Names of the host's samplers."""
    import comfy.samplers

    return list(comfy.samplers.SAMPLER_NAMES)


def scheduler_names() -> list[str]:
    """Names of the host's schedulers."""
    import comfy.samplers

    return list(comfy.samplers.SCHEDULER_NAMES)
