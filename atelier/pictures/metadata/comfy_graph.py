"""Read prompt and settings from a ComfyUI graph in API format, as embedded in pictures, by following its links.

Nodes of other packs are understood if their inputs have the usual names.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeGuard

from .infotext import take_loras
from .settings import Lora, PictureMetadata, number, stem, text, whole

_TEXTS = ("text", "text_g", "text_l", "clip_l", "clip_g", "t5xxl", "prompt", "value", "string", "wildcard_text",
          "positive")
_MODELS = ("ckpt_name", "unet_name", "checkpoint", "model_name", "model_path", "model")
_MODEL_LINKS = ("model", "model1", "guider")
"""Inputs through which a model comes; of merged models the first counts."""
_DEEPEST = 200
_MOST_LINKS = 1000
"""Of one node. Those that switch between many inputs have a hundred."""
_LONGEST = 100_000
"""Characters of a text that nodes put together: each could double what the one before it says."""


@dataclass(frozen=True)
class _Graph:
    nodes: Mapping[str, Any]
    written: dict[str, str] = field(default_factory=dict)
    """What the nodes say whose texts were asked for; each is read once, however many links lead to it."""

    def node(self, link: Any) -> Mapping[str, Any] | None:
        """The inputs of the node that a link comes from."""
        if _is_link(link):
            node = self.nodes.get(str(link[0]))
            if isinstance(node, dict) and isinstance(node.get("inputs"), dict):
                return node["inputs"]
        return None

    def empties(self, link: list[Any]) -> bool:
        """Whether the node that a link comes from makes an empty conditioning of any."""
        kind = self.nodes[str(link[0])].get("class_type")
        return isinstance(kind, str) and "zeroout" in kind.casefold().replace(" ", "")

    def above(self, link: Any, follow: tuple[str, ...] = ()) -> Iterator[Mapping[str, Any]]:
        """Inputs of the nodes upstream, nearest first; through inputs of these names, or all."""
        waiting, seen = deque([link]), set()
        while waiting and len(seen) < _DEEPEST:
            inputs = self.node(link := waiting.popleft())
            if inputs is None or str(link[0]) in seen:
                continue
            seen.add(str(link[0]))
            yield inputs
            waiting += _links(inputs, lambda name: not follow or name in follow)

    def value(self, inputs: Mapping[str, Any], *names: str) -> Any:
        """A widget's value by one of its names; where it is linked, the value of the node that gives it."""
        for name in names:
            given = inputs.get(name)
            if isinstance(given, list):
                for source in self.above(given):
                    plain = next((source[n] for n in (*names, "value", "noise_seed", "seed") if n in source
                                  and not isinstance(source[n], list)), None)
                    if plain is not None:
                        return plain
            elif given is not None:
                return given
        return None


def parse_graph(nodes: Mapping[str, Any]) -> PictureMetadata | None:
    """Read a graph; None when it holds no sampler.

    Of several samplers in a row the first counts, which makes the picture that the later ones refine.
    """
    graph = _Graph(nodes)
    samplers = [node["inputs"] for node in nodes.values() if isinstance(node, dict)
                and isinstance(node.get("inputs"), dict) and _is_sampler(node["inputs"])]
    first = next((s for s in samplers if not any(_is_sampler(up) for up in graph.above(_latent(s)))), None)
    if first is None:
        return None
    guider = graph.node(first.get("guider")) or first
    plan = next((up for up in graph.above(first.get("sigmas"), ("sigmas",))
                 if not isinstance(up.get("sigmas"), list)), first)  # nodes that split noise levels are passed by
    solver = graph.node(first.get("sampler")) or first
    noise = graph.node(first.get("noise")) or first
    positive, inline = take_loras(_prompt(graph, guider.get("positive", guider.get("conditioning"))))
    model = first.get("model") or guider.get("model") or plan.get("model")
    size = next((up for up in graph.above(_latent(first)) if "width" in up and "height" in up), {})
    return PictureMetadata(
        program="ComfyUI", positive=positive, negative=_prompt(graph, guider.get("negative")),
        sampler=text(graph.value(solver, "sampler_name")), scheduler=text(graph.value(plan, "scheduler")),
        steps=whole(graph.value(plan, "steps"), 100_000), cfg=number(graph.value(guider, "cfg")),
        seed=whole(graph.value(noise, "noise_seed", "seed")), width=whole(graph.value(size, "width"), 10**6),
        height=whole(graph.value(size, "height"), 10**6), model=_model(graph, model), model_hash="",
        loras=(*inline, *_loras(graph, model)))


def _links(inputs: Mapping[str, Any], follow: Callable[[str], bool]) -> list[list[Any]]:
    """The links among a node's inputs whose names are to be followed; each node and output once."""
    found = {(str(value[0]), value[1]): value for name, value in inputs.items() if _is_link(value) and follow(name)}
    return list(islice(found.values(), _MOST_LINKS))


def _is_link(value: Any) -> TypeGuard[list[Any]]:
    return (isinstance(value, list) and len(value) == 2 and isinstance(value[0], str | int)
            and isinstance(value[1], int))


def _is_sampler(inputs: Mapping[str, Any]) -> bool:
    guided = "positive" in inputs and "negative" in inputs and ("seed" in inputs or "noise_seed" in inputs)
    return guided or ("guider" in inputs and "sigmas" in inputs)


def _latent(inputs: Mapping[str, Any]) -> Any:
    return inputs.get("latent_image", inputs.get("samples"))


def _prompt(graph: _Graph, link: Any) -> str:
    """The texts of a conditioning, joined; a node with both prompts is left by the side it was met on."""
    found: list[str] = []
    waiting, seen = deque([link]), set()
    while waiting and len(seen) < _DEEPEST:
        link = waiting.popleft()
        inputs = graph.node(link)
        if inputs is None or (key := (str(link[0]), link[1])) in seen:
            continue
        seen.add(key)
        if graph.empties(link):
            continue
        if "positive" in inputs and "negative" in inputs and isinstance(inputs["positive"], list):
            waiting.append(inputs["negative" if link[1] == 1 else "positive"])
            continue
        written = [_text(graph, inputs[name], 0) for name in _TEXTS if name in inputs]
        found += [each for each in dict.fromkeys(written) if each and each not in found]
        waiting += _links(inputs, lambda name: name.startswith(("conditioning", "positive", "cond")))
    return "\n".join(found)


def _text(graph: _Graph, value: Any, depth: int) -> str:
    """A text as it is; of a link, what the node says that it comes from."""
    inputs = graph.node(value)
    if inputs is None:
        return text(value)
    if depth > 20:
        return ""
    key = str(value[0])
    if key not in graph.written:
        graph.written[key] = ""  # for a node that leads back to itself
        graph.written[key] = _node_text(graph, inputs, depth + 1)[:_LONGEST]
    return graph.written[key]


def _node_text(graph: _Graph, inputs: Mapping[str, Any], depth: int) -> str:
    if "string_a" in inputs and "string_b" in inputs:
        ends = [_text(graph, inputs[name], depth) for name in ("string_a", "string_b")]
        between = inputs.get("delimiter")
        return (between if isinstance(between, str) else "").join(end for end in ends if end)
    return next((found for name in _TEXTS if name in inputs and (found := _text(graph, inputs[name], depth))), "")


def _model(graph: _Graph, link: Any) -> str:
    for inputs in graph.above(link, _MODEL_LINKS):
        name = next((inputs[key] for key in _MODELS if isinstance(inputs.get(key), str)), "")
        if name:
            return stem(name)
    return ""


def _loras(graph: _Graph, link: Any) -> tuple[Lora, ...]:
    """In the order in which they are applied: the one next to the checkpoint first."""
    found: list[Lora] = []
    for inputs in graph.above(link, _MODEL_LINKS):
        found[:0] = [Lora(stem(name), 1.0 if strength is None else strength)
                     for name, strength in ((name, number(value)) for name, value in _named_loras(inputs))
                     if isinstance(name, str) and name not in ("", "None") and strength != 0]
    return tuple(found)


def _named_loras(inputs: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Names and strengths as a loader has them, unchecked."""
    yield inputs.get("lora_name"), inputs.get("strength_model", inputs.get("strength"))
    for name, value in inputs.items():
        # rgthree's loaders of several: lora_1 with all its settings, or lora_01 beside strength_01.
        match = re.fullmatch(r"lora_(\d+)", name)
        if match and isinstance(value, dict):
            yield value.get("lora") if value.get("on", True) else None, value.get("strength")
        elif match:
            yield value, inputs.get(f"strength_{match[1]}")
