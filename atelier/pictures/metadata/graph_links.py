"""Follow the links of a ComfyUI graph in API format to where a value comes from."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeGuard

from .comfy_nodes import RULES, Chosen, Inputs, NodeRule

_DEEPEST = 200
"""Nodes that are looked at on the way from one input."""
_NESTED = 30
"""Switches and pipes that decide on each other."""
_MOST_LINKS = 1000
"""Of one node. Those that switch between many inputs have a hundred."""
_NO_RULE = NodeRule()
_VALUES = ("value", "Value", "number", "int", "float", "string", "choice")
"""Inputs of nodes that hold one value."""


class NotStated(Exception):
    """A value that the graph does not hold, or not for sure; the message says why, to follow a colon."""


@dataclass(frozen=True)
class Node:
    """One node of a graph."""

    id: str
    kind: str
    inputs: Inputs

    @property
    def rule(self) -> NodeRule:
        """How its class passes values on."""
        return RULES.get(self.kind, _NO_RULE)


@dataclass(frozen=True)
class NodeOutput:
    """Where a value is made: an output of a node."""

    node: Node
    slot: int


def is_link(value: Any) -> TypeGuard[list[Any]]:
    """Whether an input's value names another node and its output."""
    return (isinstance(value, list) and len(value) == 2 and isinstance(value[0], str | int)
            and isinstance(value[1], int))


@dataclass(frozen=True)
class Graph:
    """A graph as a picture holds it: anything may be in its places."""

    nodes: Mapping[str, Any]
    known: dict[tuple[str, ...], Any] = field(default_factory=dict)
    """What was found out; each question is answered once, however many links lead to it."""
    asked: list[tuple[str, ...]] = field(default_factory=list)
    """Questions that are being answered, each for the sake of the one before it."""

    def node(self, name: str) -> Node | None:
        """The node of this id, if it is a whole one."""
        node = self.nodes.get(name)
        if not isinstance(node, dict) or not isinstance(node.get("inputs"), dict):
            return None
        kind = node.get("class_type")
        return Node(name, kind if isinstance(kind, str) else "", node["inputs"])

    def follow(self, value: Any) -> Any:
        """Where an input's value comes from: an `NodeOutput`, or a widget's value as it is.

        Nodes that hand a value on are passed by.

        Raises:
            NotStated: the graph does not say.
        """
        for _ in range(_DEEPEST):
            if not is_link(value):
                return value
            node, slot = self.node(str(value[0])), value[1]
            if node is None:
                raise NotStated("its link leads nowhere")
            if node.rule.unsure is not None and (why := node.rule.unsure(node.inputs)):
                raise NotStated(why)
            name = node.rule.outputs[slot] if 0 <= slot < len(node.rule.outputs) else ""
            given = self._passed(node) if node.rule.passes else self.field(node, *name.split("|")) if name else None
            if given is None:
                return NodeOutput(node, slot)
            value = given
        raise NotStated("its links lead round in a circle")

    def field(self, node: Node, *names: str) -> Any:
        """What a node gets for one of its inputs, itself or through a pipe: a link or a widget's value; None for
        neither."""
        given = next((node.inputs[name] for name in names if node.inputs.get(name) is not None), None)
        pipe = next((node.inputs[name] for name in node.rule.pipes if is_link(node.inputs.get(name))), None)
        if given is not None or pipe is None:
            return given
        return self.once(("field", node.id, *names), lambda: self._piped(pipe, names))

    def value(self, node: Node, *names: str) -> Any:
        """A widget's value by one of its names; where it is linked, that of the node which holds it.

        Raises:
            NotStated: the node that it comes from makes it of something else.
        """
        return self.held(self.field(node, *names), *names)

    def held(self, given: Any, *names: str) -> Any:
        """The same of an input's value; a node that holds it has an input by one of the names, or `value` and the like.

        Raises:
            NotStated: the node that it comes from makes it of something else.
        """
        for _ in range(_DEEPEST):
            end = self.follow(given)
            if not isinstance(end, NodeOutput):
                return end
            given = next((end.node.inputs[name] for name in (*names, *_VALUES) if name in end.node.inputs), None)
            if given is None:
                raise NotStated(f"it comes from {end.node.kind or 'a node'}, which is not known")
        raise NotStated("its links lead round in a circle")

    def above(self, link: Any, follow: tuple[str, ...] = ()) -> Iterator[Node]:
        """The nodes upstream, nearest first; through inputs of these names, or all.

        Raises:
            NotStated: a switch on the way is set by the graph itself (only where names are given).
        """
        waiting, seen = deque([link]), set()
        while waiting and len(seen) < _DEEPEST:
            link = waiting.popleft()
            node = self.node(str(link[0])) if is_link(link) else None
            if node is None or node.id in seen:
                continue
            seen.add(node.id)
            if node.rule.passes:
                try:
                    waiting.append(self._passed(node))
                    continue
                except NotStated:
                    if follow:
                        raise
            yield node
            waiting += (_links(node.inputs, follow) or _links(node.inputs, node.rule.pipes)) if follow else self.once(
                ("links", node.id), lambda inputs=node.inputs: _links(inputs, inputs))

    def _piped(self, pipe: Any, names: tuple[str, ...]) -> Any:
        end = self.follow(pipe)
        return self.field(end.node, *names) if isinstance(end, NodeOutput) else None

    def once(self, question: tuple[str, ...], answer: Callable[[], Any]) -> Any:
        """An answer that is found out when first asked for.

        Args:
            question: Its kind, and what it is about.
            answer: Finds it out.

        Raises:
            NotStated: so it turned out, or the question depends on itself.
        """
        if question not in self.known:
            self.known[question] = NotStated("its links lead round in a circle")
            self.asked.append(question)
            try:
                if len(self.asked) > _NESTED:
                    raise NotStated("too many nodes decide on it")
                self.known[question] = answer()
            except NotStated as why:
                self.known[question] = why
            finally:
                self.asked.pop()
        known = self.known[question]
        if isinstance(known, NotStated):
            raise NotStated(str(known))
        return known

    def _passed(self, node: Node) -> Any:
        """The input that a node hands on; None for one that has none."""
        return self.once(("passed", node.id), lambda: self._chosen(node))

    def _chosen(self, node: Node) -> Any:
        rule = node.rule.passes
        if isinstance(rule, Chosen):
            given = node.inputs.get(rule.by)
            by = self.value(node, rule.by) if is_link(given) else given
            if isinstance(by, bool | int) and not isinstance(rule.inputs, str):
                chosen, other = rule.inputs[bool(by)], rule.inputs[not by]
                return node.inputs.get(chosen, node.inputs.get(other))
            if isinstance(by, int) and isinstance(rule.inputs, str):
                return node.inputs.get(rule.inputs.format(by))
            raise NotStated(f"the graph does not say how {node.kind} is set")
        names = sorted(name for name in node.inputs if rule and re.fullmatch(rule.names, name))
        return next((node.inputs[name] for name in names if is_link(node.inputs[name])),
                    next((node.inputs[name] for name in names), None))


def _links(inputs: Inputs, names: Iterable[str]) -> list[list[Any]]:
    """The links among a node's inputs of these names; each node and output once."""
    links = (inputs[name] for name in names if is_link(inputs.get(name)))
    return list(islice({(str(link[0]), link[1]): link for link in links}.values(), _MOST_LINKS))
