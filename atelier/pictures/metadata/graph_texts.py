"""What the texts and conditionings of a ComfyUI graph say."""

from __future__ import annotations

import re
from collections import defaultdict, deque
from dataclasses import dataclass, field
from typing import Any

from .comfy_nodes import Inputs
from .graph_links import Graph, Node, NodeOutput, NotStated, is_link
from .node_texts import LONGEST

_DEEPEST = 200
_NESTED = 60
"""Nodes that put a text together, one of the other's."""
_TEXTS = ("text", "text_g", "text_l", "clip_l", "clip_g", "t5xxl", "prompt", "value", "string", "wildcard_text")
"""Inputs that hold texts in nodes of any class."""
_SIDES = ("positive", "negative")
"""Inputs of nodes that hold one prompt and say which; elsewhere they bring conditionings."""
_PAIRS = tuple({"positive": positive, "negative": positive.replace("positive", "negative")}
               for positive in ("positive", "text_positive", "positive_prompt", "prompt_positive"))
"""Names that inputs for both prompts have in one node."""
_STYLES = ("style", "styles")


@dataclass(frozen=True)
class GraphTexts:
    """Reads the texts of one side of a graph."""

    graph: Graph
    side: str
    """"positive" or "negative": which of its prompts a node is asked for that has both."""
    notes: list[str] = field(default_factory=list)
    """What is missing in the texts that were read."""
    said: dict[tuple[str, int], str | NotStated] = field(default_factory=dict)
    """What nodes say whose texts were asked for; each is read once, however many links lead to it."""

    def prompt(self, link: Any) -> str:
        """The texts of a conditioning, joined.

        Raises:
            NotStated: one of them is not in the graph.
        """
        found: list[str] = []
        waiting, seen = deque([link]), set()
        while waiting and len(seen) < _DEEPEST:
            end = self.graph.follow(waiting.popleft())
            if not isinstance(end, NodeOutput):
                found += [end.strip()] if isinstance(end, str) else []
                continue
            if (key := (end.node.id, end.slot)) in seen:
                continue
            seen.add(key)
            if "zeroout" in end.node.kind.casefold().replace(" ", ""):
                continue
            pair = _pair(end.node.inputs)
            if pair:
                waiting.append(end.node.inputs[pair[self.side]])
                continue
            links = _conditionings(end.node)
            texts = [self._node(end).strip()] if _speaks(end.node) else [
                self.say(end.node.inputs[name]).strip() for name in (*_TEXTS, *_SIDES)
                if name in end.node.inputs and not (name in _SIDES and is_link(end.node.inputs[name]))]
            if not texts and not links:
                raise NotStated(f"it comes from {end.node.kind or 'a node'}, which is not known")
            found += texts
            waiting += links
        return "\n".join(dict.fromkeys(text for text in found if text))

    def say(self, value: Any, depth: int = 0) -> str:
        """A text as it is; of a link, what the node says that it comes from.

        Raises:
            NotStated: the graph does not say.
        """
        end = self.graph.follow(value)
        if not isinstance(end, NodeOutput):
            return str(end) if isinstance(end, str | int | float) and not isinstance(end, bool) else ""
        key = (end.node.id, end.slot)
        if key not in self.said:
            self.said[key] = NotStated("its links lead round in a circle")
            try:
                self.said[key] = self._node(end, depth + 1)
            except NotStated as error:
                self.said[key] = error
        known = self.said[key]
        if isinstance(known, NotStated):
            raise NotStated(str(known))
        return known

    def _node(self, end: NodeOutput, depth: int = 0) -> str:
        inputs, rule = end.node.inputs, end.node.rule
        made = rule.more_texts.get(end.slot, rule.text)
        if depth > _NESTED:
            raise NotStated("too many nodes put it together")
        if made is not None:
            texts = defaultdict(str, {name: self.say(value, depth) for name, value in inputs.items()
                                      if re.fullmatch(made.of, name)})
            text = made.make(texts)
            if text is None:
                raise NotStated(f"what {end.node.kind} makes of its inputs is not known")
            return text
        if pair := _pair(inputs):
            styles = [inputs[name] for name in _STYLES if isinstance(inputs.get(name), str) and inputs[name]]
            if styles and inputs.get(f"style_{self.side}") is not False:
                self.notes.append(f"the style {styles[0]} puts more around it")
            return self.say(inputs[pair[self.side]], depth)
        if _speaks(end.node):
            return self.say(inputs["populated_text"], depth)
        names = [name for name in (*_TEXTS, *_SIDES) if name in inputs]
        text = next((found for name in names if (found := self.say(inputs[name], depth))), "")
        if not names or len(text) > LONGEST:
            raise NotStated(f"it comes from {end.node.kind or 'a node'}, which is not known")
        return text


def _pair(inputs: Inputs) -> dict[str, str] | None:
    return next((pair for pair in _PAIRS if all(name in inputs for name in pair.values())), None)


def _speaks(node: Node) -> bool:
    """Whether a node says by itself what its template became."""
    return node.rule.text is not None or "populated_text" in node.inputs


def _conditionings(node: Node) -> list[Any]:
    names = [name for name, value in node.inputs.items() if is_link(value)
             and name.startswith(("conditioning", "positive", "cond"))]
    if len(names) > 1 and "switch" in node.kind.casefold():
        raise NotStated(f"which input {node.kind} takes is not known")
    return [node.inputs[name] for name in names[:_DEEPEST]]
