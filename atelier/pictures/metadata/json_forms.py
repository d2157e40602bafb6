"""Descriptions in JSON that each program writes by a form of its own: SwarmUI, Fooocus, NovelAI, CivitAI, and ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from .infotext import OWN_PROGRAM, parse_summary, take_loras
from .invoke import parse_invoke
from .samplers import from_novelai
from .settings import Lora, PictureMetadata, dicts, number, parse_object, stem, text, whole


def parse_form(values: Mapping[str, Any]) -> PictureMetadata | None:
    """Read the description by the form whose keys it has; None if it has those of none."""
    return next((parse(values) for keys, parse in _FORMS if keys <= values.keys()), None)


def parse_swarm(values: Mapping[str, Any]) -> PictureMetadata:
    """Read SwarmUI's parameters. LoRAs and their weights are two lists, in older versions two texts with commas."""
    given = values.get("sui_image_params")
    given = given if isinstance(given, dict) else {}
    names, weights = _listed(given.get("loras")), _listed(given.get("loraweights"))
    weights += [1.0] * (len(names) - len(weights))
    positive, inline = take_loras(text(given.get("prompt")))
    models = [each for each in dicts(values.get("sui_models")) if each.get("param") == "model"]
    return PictureMetadata(
        program="SwarmUI", positive=positive, negative=text(given.get("negativeprompt")),
        sampler=text(given.get("sampler")) or text(given.get("comfyuisampler")),
        scheduler=text(given.get("scheduler")) or text(given.get("comfyuischeduler")),
        steps=whole(given.get("steps"), 100_000), cfg=number(given.get("cfgscale")), seed=whole(given.get("seed")),
        width=whole(given.get("width"), 10**6), height=whole(given.get("height"), 10**6),
        model=stem(text(given.get("model"))), model_hash=text(models[0].get("hash")) if models else "",
        loras=_loras(zip(names, weights, strict=False)) or inline)


def parse_fooocus(values: Mapping[str, Any]) -> PictureMetadata:
    """Read Fooocus' own scheme. The prompt is what the person wrote, without what styles put around it."""
    positive, inline = take_loras(text(values.get("prompt")))
    size = re.match(r"\D*(\d{1,6})\D+(\d{1,6})", str(values.get("resolution", "")))
    styles = text(values.get("styles")).strip("[]")
    triples = values.get("loras")
    pairs = [(each[0], each[1]) for each in triples if isinstance(each, list) and len(each) >= 2] if isinstance(
        triples, list) else []
    return PictureMetadata(
        program="Fooocus", positive=positive, negative=text(values.get("negative_prompt")),
        sampler=text(values.get("sampler")), scheduler=text(values.get("scheduler")),
        steps=whole(values.get("steps"), 100_000), cfg=number(values.get("guidance_scale")),
        seed=whole(values.get("seed")), width=int(size[1]) if size else None, height=int(size[2]) if size else None,
        model=stem(text(values.get("base_model"))), model_hash=text(values.get("base_model_hash")),
        loras=_loras(pairs) or inline,
        left_out={"positive": f"the styles {styles} put more around it"} if styles else {})


def parse_novelai(values: Mapping[str, Any]) -> PictureMetadata:
    """Read what NovelAI writes as a comment. Prompts of single characters follow the common one, each in a line."""
    sampler, scheduler = from_novelai(text(values.get("sampler")), text(values.get("noise_schedule")))
    return PictureMetadata(
        program="NovelAI", positive=_captions(values.get("v4_prompt")) or text(values.get("prompt")),
        negative=_captions(values.get("v4_negative_prompt")) or text(values.get("uc")),
        sampler=sampler, scheduler=scheduler, steps=whole(values.get("steps"), 100_000),
        cfg=number(values.get("scale")), seed=whole(values.get("seed")), width=whole(values.get("width"), 10**6),
        height=whole(values.get("height"), 10**6))


def parse_novelai_fields(values: Mapping[str, Any]) -> PictureMetadata | None:
    """Read the fields of a NovelAI picture: `Comment` holds the settings, `Description` the prompt."""
    comment = parse_object(text(values.get("Comment")))
    if comment is None or not text(values.get("Software")).startswith("NovelAI"):
        return None
    return parse_novelai({"prompt": values.get("Description"), **comment})


def parse_drawn(values: Mapping[str, Any]) -> PictureMetadata:
    """Read what `atelier generate` writes."""
    loras = _loras([(values.get("lora"), values.get("strength"))])
    return PictureMetadata(
        program=OWN_PROGRAM, positive=text(values.get("prompt")), negative=text(values.get("negative")),
        sampler=text(values.get("sampler")), steps=whole(values.get("steps"), 100_000), cfg=number(values.get("cfg")),
        seed=whole(values.get("seed")), width=whole(values.get("width"), 10**6),
        height=whole(values.get("height"), 10**6), model=stem(text(values.get("model"))), loras=loras)


def _parse_civitai(values: Mapping[str, Any]) -> PictureMetadata | None:
    summary = parse_object(text(values.get("extraMetadata")))
    return parse_summary(summary) if summary else None


_FORMS: tuple[tuple[frozenset[str], Callable[[Mapping[str, Any]], PictureMetadata | None]], ...] = (
    (frozenset({"sui_image_params"}), parse_swarm),
    (frozenset({"base_model", "guidance_scale"}), parse_fooocus),
    (frozenset({"Comment", "Software"}), parse_novelai_fields),
    (frozenset({"v4_prompt"}), parse_novelai),
    (frozenset({"uc", "sampler"}), parse_novelai),
    (frozenset({"extraMetadata"}), _parse_civitai),
    (frozenset({"positive_prompt"}), parse_invoke),
)
"""The keys by which a form is known, and who reads it."""


def _captions(prompt: Any) -> str:
    caption = prompt.get("caption") if isinstance(prompt, dict) else None
    if not isinstance(caption, dict):
        return ""
    characters = (text(each.get("char_caption")) for each in dicts(caption.get("char_captions")))
    return "\n".join(filter(None, (text(caption.get("base_caption")), *characters)))


def _listed(value: Any) -> list[Any]:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return list(value) if isinstance(value, list) else []


def _loras(pairs: Any) -> tuple[Lora, ...]:
    named = ((stem(text(name)), number(weight)) for name, weight in pairs)
    return tuple(Lora(name, 1.0 if weight is None else weight) for name, weight in named if name not in ("", "None"))
