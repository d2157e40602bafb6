"""Read prompt and settings from a ComfyUI graph in API format, as embedded in pictures, by following its links.

What the graph does not say for sure is left out, and `PictureMetadata.left_out` says why.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from .graph_links import Graph, Node, NotStated
from .graph_loras import model_loras, model_name
from .graph_texts import GraphTexts
from .infotext import take_loras
from .settings import Lora, PictureMetadata, number, text, whole

_SOURCES = ("latent_image", "samples", "latent", "optional_latent", "image", "images", "upscaled_image")
"""Inputs through which a sampler gets what it works on."""
_MOST_SAMPLERS = 100
"""Samplers and saving nodes that are looked at."""
_MOST_COMPARED = 20
"""Samplers that are read in full, to compare them."""


def parse_graph(nodes: Mapping[str, Any], saved_by: str = "") -> PictureMetadata | None:
    """Read a graph; None when it holds no sampler.

    Of several samplers in a row the first counts, which makes the picture that the later ones refine. Of several beside
    each other those count that lead to the node which saved the picture; what they do not agree on is left out.

    Args:
        nodes: The graph in API format.
        saved_by: Id of the node that saved the picture, where it is known; else every node that saves may have.
    """
    graph = Graph(nodes)
    whole_nodes = [node for name in nodes if (node := graph.node(name)) is not None]
    samplers = [node for node in whole_nodes if _is_sampler(node)][:_MOST_SAMPLERS]
    first = [node for node in samplers if not any(_is_sampler(up) for up in graph.above(_source(node)))]
    if len(first) > 1:
        known = graph.node(saved_by)
        saving = [known] if known else [node for node in whole_nodes if "save" in node.kind.casefold()]
        saved = {up.id for node in saving[:_MOST_SAMPLERS] for link in node.inputs.values() for up in graph.above(link)}
        first = [node for node in first if node.id in saved] or first
    if len(first) > _MOST_COMPARED:
        return PictureMetadata(program="ComfyUI", left_out=dict.fromkeys(
            ("positive", "negative", "seed"), f"the graph has more than {_MOST_COMPARED} samplers"))
    read = [_Reading(graph, node).metadata() for node in first]
    return _agreed(read) if read else None


@dataclass(frozen=True)
class _Reading:
    """What the graph says of one sampler."""

    graph: Graph
    sampler: Node
    left_out: dict[str, str] = field(default_factory=dict)

    def metadata(self) -> PictureMetadata:
        first = self.sampler
        guider = self._beside("guider")
        plan = self._plan()
        positive, inline = take_loras(self._prompt("positive", guider, "positive", "pos", "conditioning"))
        width, height = self._size()
        model = first.inputs.get("model") or guider.inputs.get("model") or plan.inputs.get("model")
        return PictureMetadata(
            program="ComfyUI", positive=positive, negative=self._prompt("negative", guider, "negative", "neg"),
            sampler=text(self._value("sampler", self._beside("sampler"), "sampler_name")),
            scheduler=text(self._value("scheduler", plan, "scheduler")),
            steps=whole(self._value("steps", plan, "steps"), 100_000), cfg=number(self._value("cfg", guider, "cfg")),
            seed=whole(self._value("seed", self._beside("noise"), "noise_seed", "seed")),
            width=width, height=height,
            model=self._stated("model", lambda: model_name(self.graph, first, model)) or "", model_hash="",
            loras=(*inline, *(self._stated("loras", lambda: self._loras(model)) or ())), left_out=self.left_out)

    def _stated(self, name: str, read: Callable[[], Any]) -> Any:
        """What `read` gives; None with a reason where the graph does not say."""
        try:
            return read()
        except NotStated as why:
            self.left_out[name] = str(why)
            return None

    def _value(self, name: str, node: Node | None, *names: str) -> Any:
        return self._stated(name, lambda: self.graph.value(node, *names)) if node is not None else None

    def _prompt(self, side: str, guider: Node, *names: str) -> str:
        texts = GraphTexts(self.graph, side)
        prompt = self._stated(side, lambda: texts.prompt(self.graph.field(guider, *names))) or ""
        if texts.notes and prompt:
            self.left_out[side] = "; ".join(dict.fromkeys(texts.notes))
        return prompt

    def _size(self) -> tuple[int | None, int | None]:
        """Width and height of the latents that the sampler gets."""
        node = next((up for up in self.graph.above(_source(self.sampler)) if _has_size(up)), None)
        listed = re.fullmatch(r"(\d{1,6}) x (\d{1,6})", text(node.inputs.get("resolution"))) if node else None
        if listed:  # instead of the widgets beside it
            return int(listed[1]), int(listed[2])
        return (whole(self._value("width", node, "width", "empty_latent_width"), 10**6),
                whole(self._value("height", node, "height", "empty_latent_height"), 10**6))

    def _loras(self, model: Any) -> tuple[Lora, ...]:
        loras, missing = model_loras(self.graph, self.sampler, model)
        if missing:
            self.left_out["loras"] = missing
        return loras

    def _beside(self, name: str) -> Node:
        """The node that holds a part of the sampler's settings; the sampler itself where it has them all."""
        return next(iter(self.graph.above(self.sampler.inputs.get(name))), self.sampler)

    def _plan(self) -> Node:
        """The node that holds the schedule; nodes that split noise levels are passed by."""
        try:
            return next((up for up in self.graph.above(self.sampler.inputs.get("sigmas"), ("sigmas",))
                         if not isinstance(up.inputs.get("sigmas"), list)), self.sampler)
        except NotStated:
            return self.sampler


def _is_sampler(node: Node) -> bool:
    seeded = "seed" in node.inputs or "noise_seed" in node.inputs
    guided = "positive" in node.inputs and "negative" in node.inputs and seeded and not node.rule.pipes
    return guided or ("guider" in node.inputs and "sigmas" in node.inputs) or node.rule.samples


def _source(node: Node) -> Any:
    return next((node.inputs[name] for name in (*_SOURCES, *node.rule.pipes) if name in node.inputs), None)


def _has_size(node: Node) -> bool:
    return any(f"{prefix}width" in node.inputs and f"{prefix}height" in node.inputs
               for prefix in ("", "empty_latent_"))


def _agreed(read: list[PictureMetadata]) -> PictureMetadata:
    """What all of several descriptions say."""
    first, *others = read
    left_out = dict(first.left_out)
    values: dict[str, Any] = {}
    for entry in fields(first):
        value = getattr(first, entry.name)
        if entry.name == "left_out" or all(getattr(other, entry.name) == value for other in others):
            continue
        values[entry.name] = entry.default
        left_out[entry.name] = f"the graph has {len(read)} samplers that differ in it"
    return PictureMetadata(**{**{e.name: getattr(first, e.name) for e in fields(first)}, **values,
                              "left_out": left_out})
