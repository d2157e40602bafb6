"""InvokeAI's metadata: the flat form of version 3 and later, and the nested one of version 2."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .infotext import take_loras
from .samplers import from_invoke
from .settings import Found, Lora, dicts, number, stem, text, whole

_NEGATIVE = re.compile(r"(?<!\\)\[([^\[\]]*)(?<!\\)\]")
"""Version 2 kept the negative prompt within the prompt, in square brackets."""


def parse_invoke(values: Mapping[str, Any]) -> Found:
    """Read `invokeai_metadata` (version 3 and later)."""
    sampler, scheduler = from_invoke(text(values.get("scheduler")))
    loras = tuple(Lora(name, 1.0 if (weight := number(each.get("weight"))) is None else weight)
                  for each in dicts(values.get("loras"))
                  if (name := _model_name(each.get("model") or each.get("lora"))))
    positive, inline = take_loras(text(values.get("positive_prompt")))
    return Found("InvokeAI", positive, text(values.get("negative_prompt")), sampler,
                 scheduler, whole(values.get("steps"), 100_000), number(values.get("cfg_scale")),
                 whole(values.get("seed")), whole(values.get("width"), 10**6), whole(values.get("height"), 10**6),
                 _model_name(values.get("model")), _model_hash(values.get("model")), loras + inline)


def parse_invoke_2(values: Mapping[str, Any]) -> Found:
    """Read `sd-metadata` (version 2)."""
    image = values.get("image")
    image = image if isinstance(image, dict) else {}
    prompt = image.get("prompt")
    if isinstance(prompt, list):
        prompt = " ".join(text(each.get("prompt")) for each in prompt if isinstance(each, dict))
    prompt, loras = take_loras(text(prompt))
    sampler, scheduler = from_invoke(text(image.get("sampler")))
    return Found("InvokeAI", " ".join(_NEGATIVE.sub(" ", prompt).split()),
                 ", ".join(match.strip() for match in _NEGATIVE.findall(prompt)), sampler, scheduler,
                 whole(image.get("steps"), 100_000), number(image.get("cfg_scale")), whole(image.get("seed")),
                 whole(image.get("width"), 10**6), whole(image.get("height"), 10**6),
                 stem(text(values.get("model_weights"))), text(values.get("model_hash")), loras)


def _model_name(model: Any) -> str:
    if isinstance(model, dict):
        return stem(text(model.get("name")) or text(model.get("model_name")))
    return stem(text(model))


def _model_hash(model: Any) -> str:
    return text(model.get("hash")) if isinstance(model, dict) else ""
