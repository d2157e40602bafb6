"""InvokeAI's metadata: the flat form of version 3 and later, and the nested one of version 2."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .infotext import take_loras
from .samplers import from_invoke
from .settings import Lora, PictureMetadata, dicts, number, stem, text, whole

_NEGATIVE = re.compile(r"(?<!\\)\[([^\[\]]*)(?<!\\)\]")
"""Version 2 kept the negative prompt within the prompt, in square brackets."""


def parse_invoke(values: Mapping[str, Any]) -> PictureMetadata:
    """Read `invokeai_metadata` (version 3 and later)."""
    sampler, scheduler = from_invoke(text(values.get("scheduler")))
    loras = tuple(Lora(name, 1.0 if (weight := number(each.get("weight"))) is None else weight)
                  for each in dicts(values.get("loras"))
                  if (name := _model_name(each.get("model") or each.get("lora"))))
    positive, inline = take_loras(text(values.get("positive_prompt")))
    return PictureMetadata(
        program="InvokeAI", positive=positive, negative=text(values.get("negative_prompt")), sampler=sampler,
        scheduler=scheduler, steps=whole(values.get("steps"), 100_000), cfg=number(values.get("cfg_scale")),
        seed=whole(values.get("seed")), width=whole(values.get("width"), 10**6),
        height=whole(values.get("height"), 10**6), model=_model_name(values.get("model")),
        model_hash=_model_hash(values.get("model")), loras=loras + inline)


def parse_invoke_2(values: Mapping[str, Any]) -> PictureMetadata:
    """Read `sd-metadata` (version 2)."""
    image = values.get("image")
    image = image if isinstance(image, dict) else {}
    prompt = image.get("prompt")
    if isinstance(prompt, list):
        prompt = " ".join(text(each.get("prompt")) for each in prompt if isinstance(each, dict))
    prompt, loras = take_loras(text(prompt))
    sampler, scheduler = from_invoke(text(image.get("sampler")))
    return PictureMetadata(
        program="InvokeAI", positive=" ".join(_NEGATIVE.sub(" ", prompt).split()),
        negative=", ".join(match.strip() for match in _NEGATIVE.findall(prompt)), sampler=sampler, scheduler=scheduler,
        steps=whole(image.get("steps"), 100_000), cfg=number(image.get("cfg_scale")), seed=whole(image.get("seed")),
        width=whole(image.get("width"), 10**6), height=whole(image.get("height"), 10**6),
        model=stem(text(values.get("model_weights"))), model_hash=text(values.get("model_hash")), loras=loras)


def _model_name(model: Any) -> str:
    if isinstance(model, dict):
        return stem(text(model.get("name")) or text(model.get("model_name")))
    return stem(text(model))


def _model_hash(model: Any) -> str:
    return text(model.get("hash")) if isinstance(model, dict) else ""
