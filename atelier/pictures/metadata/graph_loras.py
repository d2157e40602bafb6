"""The model of a ComfyUI graph's sampler, and the LoRAs on it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from .comfy_nodes import Inputs
from .graph_links import Graph, Node, NodeOutput, NotStated, is_link
from .settings import Lora, dicts, number, stem

_MODELS = ("ckpt_name", "base_ckpt_name", "unet_name", "checkpoint", "model_name", "model_path", "model")
_LINKS = ("model", "model1", "base_model", "model_override", "guider")
"""Inputs through which a model comes; of merged models the first counts."""
_STACKS = ("lora_stack", "optional_lora_stack")
_STRENGTHS = ("strength_model", "strength", "lora_model_strength", "model_weight", "lora_wt")


def model_name(graph: Graph, start: Node, link: Any) -> str:
    """The name of the model that a link brings; "" where no loader is found.

    Raises:
        NotStated: the graph does not say which model it is.
    """
    for node in _chain(graph, start, link):
        for key in _MODELS:
            given = node.inputs.get(key)
            name = _content(graph.value(node, key) if is_link(given) and key not in _LINKS else given)
            if isinstance(name, str) and name:
                return stem(name)
    return ""


def model_loras(graph: Graph, start: Node, link: Any) -> tuple[tuple[Lora, ...], str]:
    """The LoRAs in the order in which they are applied (the one next to the checkpoint first), and what is not read.

    Raises:
        NotStated: the graph does not say through which nodes the model comes.
    """
    found: list[Lora] = []
    missing: list[str] = []
    for node in _chain(graph, start, link):
        own: list[Lora] = []
        for name, strength in graph.once(("loras", node.id), lambda node=node: list(_named(graph, node))):
            if not isinstance(name, str) or name in ("", "None"):
                continue
            try:
                value = number(graph.held(strength, *_STRENGTHS))
            except NotStated:
                missing.append(f"the strength of {stem(name)} is not in the graph")
                continue
            if value != 0:
                own.append(Lora(stem(name), 1.0 if value is None else value))
        found[:0] = own
        if is_link(node.inputs.get("lora")) and not own:
            missing.append(f"{node.kind} applies one whose name is not in the graph")
    return tuple(found), "; ".join(missing)


def _chain(graph: Graph, start: Node, link: Any) -> Iterator[Node]:
    """The nodes that the model comes through, and stacks of LoRAs on them."""
    if not is_link(link):
        link = next((start.inputs[name] for name in start.rule.pipes if is_link(start.inputs.get(name))), None)
    return graph.above(link, (*_LINKS, *_STACKS))


def _named(graph: Graph, node: Node) -> Iterator[tuple[Any, Any]]:
    """Names and strengths as a loader has them, unchecked: one, numbered ones, or a list of objects."""
    inputs = node.inputs
    if inputs.get("switch") == "Off" or inputs.get("toggle") is False:
        return
    yield _content(inputs.get("lora_name")), _strength(inputs)
    if is_link(link := inputs.get("lora")):
        yield _handed(graph, link), _strength(inputs)
    count = number(inputs.get("lora_count", inputs.get("num_loras")))
    for name, value in inputs.items():
        match = re.fullmatch(r"lora_(?:name_)?(\d{1,4})|lora_(\d{1,4})_name", name)
        if match:
            at = match[1] or match[2]
            if isinstance(value, dict):
                yield _of_object(value)
            elif _used(inputs, at) and (count is None or int(at) <= count):
                yield value, _numbered_strength(inputs, at)
        if "lora" in name.casefold():
            for each in dicts(value.get("__value__") if isinstance(value, dict) else value):
                yield _of_object(each)


def _content(value: Any) -> Any:
    """A name from a list with pictures, which is an object."""
    return value.get("content") if isinstance(value, dict) else value


def _used(inputs: Inputs, at: str) -> bool:
    return inputs.get(f"switch_{at}", "On") in ("On", True) and inputs.get(f"lora_{at}") is not False


def _of_object(value: Inputs) -> tuple[Any, Any]:
    off = value.get("on", value.get("active", True)) is False
    return (None if off else value.get("lora", value.get("name"))), value.get("strength")


def _strength(inputs: Inputs) -> Any:
    return next((inputs[name] for name in _STRENGTHS if name in inputs), None)


def _numbered_strength(inputs: Inputs, at: str) -> Any:
    """One strength for both parts, or the model's own where the node is set to have two."""
    simple = inputs.get("input_mode", inputs.get("mode", "advanced")) == "simple"
    both = (f"lora_wt_{at}", f"strength_{at}", f"lora_{at}_strength")
    own = (f"model_str_{at}", f"model_weight_{at}", f"lora_{at}_model_strength")
    return next((inputs[name] for name in (*(both if simple else own), *own, *both) if name in inputs), None)


def _handed(graph: Graph, link: Any) -> Any:
    """The name of a LoRA that another node loads or trains."""
    try:
        end = graph.follow(link)
    except NotStated:
        return None
    inputs = end.node.inputs if isinstance(end, NodeOutput) else {}
    return next((inputs[name] for name in ("lora_name", "lora", "name") if isinstance(inputs.get(name), str)), None)
