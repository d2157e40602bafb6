"""A ComfyUI graph in API form, as it stands in pictures: prompt and settings found by following the links.

Nodes of other packs are understood as far as their inputs have the usual names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .infotext import take_loras
from .settings import Found, Lora, number, stem, text, whole

_TEXTS = ("text", "text_g", "text_l", "clip_l", "clip_g", "t5xxl", "prompt", "value", "string", "wildcard_text",
          "positive")
_MODELS = ("ckpt_name", "unet_name", "checkpoint", "model_name", "model_path", "model")
_DEEPEST = 200


@dataclass(frozen=True)
class _Graph:
    nodes: Mapping[str, Any]

    def node(self, link: Any) -> Mapping[str, Any] | None:
        """The inputs of the node that a link comes from."""
        if isinstance(link, list) and len(link) == 2 and isinstance(link[0], str | int):
            node = self.nodes.get(str(link[0]))
            if isinstance(node, dict) and isinstance(node.get("inputs"), dict):
                return node["inputs"]
        return None

    def above(self, link: Any, follow: tuple[str, ...] = ()) -> Iterator[Mapping[str, Any]]:
        """Inputs of the nodes upstream, nearest first; through inputs of these names, or all."""
        waiting, seen = [link], set()
        while waiting and len(seen) < _DEEPEST:
            inputs = self.node(link := waiting.pop(0))
            if inputs is None or str(link[0]) in seen:
                continue
            seen.add(str(link[0]))
            yield inputs
            waiting += [value for name, value in inputs.items() if isinstance(value, list)
                        and (not follow or name in follow)]

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


def parse_graph(nodes: Mapping[str, Any]) -> Found | None:
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
    plan = graph.node(first.get("sigmas")) or first
    solver = graph.node(first.get("sampler")) or first
    noise = graph.node(first.get("noise")) or first
    positive, inline = take_loras(_prompt(graph, guider.get("positive", guider.get("conditioning"))))
    model = first.get("model") or guider.get("model") or plan.get("model")
    size = next((up for up in graph.above(_latent(first)) if "width" in up and "height" in up), {})
    return Found(
        "ComfyUI", positive, _prompt(graph, guider.get("negative")), text(graph.value(solver, "sampler_name")),
        text(graph.value(plan, "scheduler")), whole(graph.value(plan, "steps"), 100_000),
        number(graph.value(guider, "cfg")), whole(graph.value(noise, "noise_seed", "seed")),
        whole(graph.value(size, "width"), 10**6), whole(graph.value(size, "height"), 10**6),
        _model(graph, model), "", (*inline, *_loras(graph, model)))


def _is_sampler(inputs: Mapping[str, Any]) -> bool:
    guided = "positive" in inputs and "negative" in inputs and ("seed" in inputs or "noise_seed" in inputs)
    return guided or ("guider" in inputs and "sigmas" in inputs)


def _latent(inputs: Mapping[str, Any]) -> Any:
    return inputs.get("latent_image", inputs.get("samples"))


def _prompt(graph: _Graph, link: Any) -> str:
    """The texts of a conditioning, joined; a node with both prompts is left by the side it was met on."""
    found: list[str] = []
    waiting, seen = [link], set()
    while waiting and len(seen) < _DEEPEST:
        link = waiting.pop(0)
        inputs = graph.node(link)
        if inputs is None or (key := (str(link[0]), link[1])) in seen:
            continue
        seen.add(key)
        if "positive" in inputs and "negative" in inputs and isinstance(inputs["positive"], list):
            waiting.append(inputs["negative" if link[1] == 1 else "positive"])
            continue
        written = [_text(graph, inputs[name], 0) for name in _TEXTS if name in inputs]
        found += [each for each in dict.fromkeys(written) if each and each not in found]
        waiting += [value for name, value in inputs.items() if name.startswith(("conditioning", "positive", "cond"))
                    and isinstance(value, list)]
    return "\n".join(found)


def _text(graph: _Graph, value: Any, depth: int) -> str:
    inputs = graph.node(value)
    if inputs is None:
        return text(value)
    if depth > 20:
        return ""
    if "string_a" in inputs and "string_b" in inputs:
        ends = [_text(graph, inputs[name], depth + 1) for name in ("string_a", "string_b")]
        between = inputs.get("delimiter")
        return (between if isinstance(between, str) else "").join(end for end in ends if end)
    return next((found for name in _TEXTS if name in inputs and (found := _text(graph, inputs[name], depth + 1))), "")


def _model(graph: _Graph, link: Any) -> str:
    for inputs in graph.above(link, ("model", "guider")):
        name = next((inputs[key] for key in _MODELS if isinstance(inputs.get(key), str)), "")
        if name:
            return stem(name)
    return ""


def _loras(graph: _Graph, link: Any) -> tuple[Lora, ...]:
    found = []
    for inputs in graph.above(link, ("model", "guider")):
        name, strength = inputs.get("lora_name"), number(inputs.get("strength_model", inputs.get("strength")))
        if isinstance(name, str) and strength != 0:
            found.append(Lora(stem(name), 1.0 if strength is None else strength))
    return tuple(reversed(found))
