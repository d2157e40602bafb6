"""What ComfyUI's node classes pass on, as a table: the only place that knows a class by its name.

A class that is not here is understood if its inputs have the usual names; what it makes of them is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from string import Formatter
from typing import Any

LONGEST = 100_000
"""Characters of a text that nodes put together: each could double what the one before it says."""

Inputs = Mapping[str, Any]
Texts = Mapping[str, str]
"""Texts by input; an input that is not there is empty."""


@dataclass(frozen=True)
class First:
    """Hands on the first linked input, in order of the names."""

    names: str
    """A regular expression."""


@dataclass(frozen=True)
class Chosen:
    """Hands on the input that the value of another one names."""

    by: str
    inputs: str | tuple[str, str]
    """A name with {} for a number; or those for false and true."""


@dataclass(frozen=True)
class Made:
    """Says a text that is made of others."""

    of: str
    """A regular expression for the inputs that it is made of."""
    make: Callable[[Texts], str | None]
    """None where the text cannot be told for sure."""


@dataclass(frozen=True, kw_only=True)
class NodeRule:
    """How one class passes values on."""

    passes: First | Chosen | None = None
    """For a node that hands on one of its inputs as it is."""
    text: Made | None = None
    more_texts: Mapping[int, Made] = field(default_factory=dict)
    """By output, for those that say something else."""
    outputs: tuple[str, ...] = ()
    """The inputs that outputs hand on, by output; "" for one that makes something new."""
    pipes: tuple[str, ...] = ()
    """Inputs that bring several values at once; what the node has no input for comes from the first that is linked."""
    samples: bool = False
    """Whether it is a sampler that gets its prompts through a pipe."""
    unsure: Callable[[Inputs], str] | None = None
    """Why the graph does not say what the node gives; "" where it does."""


def joined(parts: list[str], by: str = "") -> str | None:
    """The parts with `by` between them; None where that is too long."""
    return by.join(parts) if sum(map(len, parts)) + len(by) * len(parts) <= LONGEST else None


def _parts(*names: str, by: str = "") -> Made:
    """The inputs of these names, with another one's text between them."""
    return Made("|".join([*names, by or "-"]), lambda texts: joined([texts[name] for name in names], texts[by]))


def _filled(texts: Texts, by: str, *, trim: bool = False) -> str | None:
    """All texts but the settings in order of the names, without empty ones."""
    between = texts[by].replace("\\n", "\n")
    parts = [texts[name].strip() if trim else texts[name] for name in sorted(texts)
             if name not in (by, "clean_whitespace")]
    return joined([part for part in parts if part], between)


def _numbered(texts: Texts, by: str) -> str | None:
    """`string_1`, `string_2`, … in the order of their numbers."""
    names = sorted((name for name in texts if name != by), key=lambda name: int(name.rpartition("_")[2]))
    return joined([texts[name] for name in names], texts[by])


def replaced(text: str, find: str, by: str) -> str | None:
    """`text` with each `find` replaced; None where that is too long."""
    count = text.count(find)
    return text.replace(find, by) if len(text) + count * max(len(by) - len(find), 0) <= LONGEST else None


def _replaced(text: str, *pairs: tuple[str, str]) -> str | None:
    for find, by in pairs:
        changed = replaced(text, find, by) if find else text
        if changed is None:
            return None
        text = changed
    return text


def _formatted(texts: Texts) -> str | None:
    """Python's `{name}`, without the rest of that language, which can ask for anything."""
    parts: list[str] = []
    try:
        for plain, name, spec, conversion in Formatter().parse(texts["f_string"]):
            if spec or conversion or (name is not None and f"values.{name}" not in texts):
                return None
            parts += [plain, texts[f"values.{name}"] if name is not None else ""]
    except ValueError:
        return None
    return joined(parts)


def _string_function(texts: Texts) -> str | None:
    given = {name: "" if texts[name] == "undefined" else texts[name] for name in ("text_a", "text_b", "text_c")}
    tidy = texts["tidy_tags"] == "yes"
    if texts["action"] == "append":
        out = joined([part for part in given.values() if part], ", " if tidy else "")
    elif given["text_b"].startswith("/") and given["text_b"].endswith("/"):
        return None  # a regular expression of a stranger may never end
    else:
        out = _replaced(given["text_a"], (given["text_b"], given["text_c"]))
    return _replaced(out, ("  ", " "), (" ,", ","), (",,", ","), (",,", ",")) if out and tidy else out


def _cased(texts: Texts) -> str:
    change = {"UPPERCASE": str.upper, "lowercase": str.lower, "Capitalize": str.capitalize, "Title Case": str.title}
    return change.get(texts["mode"], str)(texts["string"])


def _trimmed(texts: Texts) -> str:
    change = {"Both": str.strip, "Left": str.lstrip, "Right": str.rstrip}
    return change.get(texts["mode"], str)(texts["string"])


def _populated(texts: Texts) -> str | None:
    """What a template with wildcards became; the template alone says nothing."""
    return texts["populated_text"] or None


def _lines(inputs: Inputs) -> list[str]:
    lines = inputs["text"].splitlines() if isinstance(inputs.get("text"), str) else []
    return [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]


def _several_lines(inputs: Inputs) -> str:
    return "" if len(_lines(inputs)) == 1 else "Prompt List gives several, and the graph does not say which"


def _single_line(texts: Texts) -> str | None:
    before, after = texts["before"], texts["after"]
    end = after if after.startswith((",", ".", ";", " ")) or not after.strip() else f" {after}"
    return joined([before.rstrip() + " " if before.strip() else "", *_lines(texts), end.rstrip()])


def _while_running(name: str) -> NodeRule:
    return NodeRule(unsure=lambda _: f"{name} makes it while the graph runs")


_SIDES = NodeRule(outputs=("positive", "negative"))
_CONTEXT = ("", "model", "clip", "vae", "positive", "negative", "latent", "images", "seed")
_BIG_CONTEXT = (*_CONTEXT, "steps", "step_refiner", "cfg", "ckpt_name", "sampler", "scheduler", "clip_width",
                "clip_height", "text_pos_g", "text_pos_l", "text_neg_g", "text_neg_l", "mask", "control_net", "denoise")
_CONTEXTS = ("ctx_01", "ctx_02", "ctx_03", "ctx_04", "ctx_05")

RULES: Mapping[str, NodeRule] = {
    # Hand on one input.
    "Reroute": NodeRule(passes=First(".*")),
    "Any Switch (rgthree)": NodeRule(passes=First(r"any_\d+")),
    "ImpactSwitch": NodeRule(passes=Chosen("select", "input{}")),
    "ComfySwitchNode": NodeRule(passes=Chosen("switch", ("on_false", "on_true"))),
    "ComfySoftSwitchNode": NodeRule(passes=Chosen("switch", ("on_false", "on_true"))),
    "easy ifElse": NodeRule(passes=Chosen("boolean", ("on_false", "on_true"))),
    "easy anythingIndexSwitch": NodeRule(passes=Chosen("index", "value{}")),
    "CR Text Input Switch": NodeRule(passes=Chosen("Input", "text{}")),
    "CR Model Input Switch": NodeRule(passes=Chosen("Input", "model{}")),
    "CR Conditioning Input Switch": NodeRule(passes=Chosen("Input", "conditioning{}")),
    "ShowText|pysssss": NodeRule(passes=First("text")),
    "PreviewAny": NodeRule(passes=First("source")),
    "Display Any (rgthree)": NodeRule(passes=First("source")),
    "ConvertStringToComboNode": NodeRule(passes=First("string")),
    # Bring several values at once.
    "Context (rgthree)": NodeRule(outputs=_CONTEXT, pipes=("base_ctx",)),
    "Context Big (rgthree)": NodeRule(outputs=_BIG_CONTEXT, pipes=("base_ctx",)),
    "Context Switch (rgthree)": NodeRule(outputs=_CONTEXT, pipes=_CONTEXTS),
    "Context Switch Big (rgthree)": NodeRule(outputs=_BIG_CONTEXT, pipes=_CONTEXTS),
    "FromBasicPipe": NodeRule(outputs=("model", "clip", "vae", "positive", "negative"), pipes=("basic_pipe",)),
    "FromBasicPipe_v2": NodeRule(outputs=("", "model", "clip", "vae", "positive", "negative"), pipes=("basic_pipe",)),
    "KSampler Config (rgthree)": NodeRule(outputs=("steps_total", "refiner_step", "cfg", "sampler_name", "scheduler")),
    # Have both prompts.
    **dict.fromkeys(("ControlNetApplyAdvanced", "ControlNetApplySD3", "ControlNetInpaintingAliMamaApply",
                     "InpaintModelConditioning", "InstructPixToPixConditioning",
                     "ACN_AdvancedControlNetApply", "ACN_AdvancedControlNetApply_v2"), _SIDES),
    "Efficient Loader": NodeRule(outputs=("model", "positive", "negative", "", "", "clip")),
    "Eff. Loader SDXL": NodeRule(outputs=("",)),
    "KSampler (Efficient)": NodeRule(outputs=("model", "positive", "negative")),
    "KSampler Adv. (Efficient)": NodeRule(outputs=("model", "positive", "negative")),
    "KSampler SDXL (Eff.)": NodeRule(outputs=("",), pipes=("sdxl_tuple",), samples=True),
    # Make texts of texts.
    "StringConcatenate": NodeRule(text=_parts("string_a", "string_b", by="delimiter")),
    "StringReplace": NodeRule(text=Made("string|find|replace", lambda t: replaced(
        t["string"], t["find"], t["replace"]))),
    "StringFormat": NodeRule(text=Made(r"f_string|values\..+", _formatted)),
    "StringTrim": NodeRule(text=Made("string|mode", _trimmed)),
    "CaseConverter": NodeRule(text=Made("string|mode", _cased)),
    "StringFunction|pysssss": NodeRule(text=Made("action|tidy_tags|text_[abc]", _string_function)),
    "Text Concatenate": NodeRule(text=Made("delimiter|clean_whitespace|text_[a-z]", lambda t: _filled(
        t, "delimiter", trim=t["clean_whitespace"] == "true"))),
    "CR Text Concatenate": NodeRule(text=_parts("text1", "text2", by="separator")),
    "CR Text Replace": NodeRule(text=Made(r"text|find\d|replace\d", lambda t: _replaced(
        t["text"], *((t[f"find{n}"], t[f"replace{n}"]) for n in (1, 2, 3))))),
    "JoinStrings": NodeRule(text=_parts("string1", "string2", by="delimiter")),
    "JoinStringMulti": NodeRule(text=Made(r"delimiter|string_\d+", lambda t: _numbered(t, "delimiter"))),
    "easy promptConcat": NodeRule(text=_parts("prompt1", "prompt2", by="separator")),
    "promptConcat": NodeRule(text=_parts("prompt1", "prompt2", by="separator")),
    "ImpactWildcardProcessor": NodeRule(text=Made("populated_text", _populated)),
    "ImpactWildcardEncode": NodeRule(text=Made("populated_text", _populated), outputs=("model", "clip", "", "")),
    "CustomCombo": NodeRule(text=Made("choice", lambda t: t["choice"])),
    # Give what the graph does not say.
    "AtelierPromptList": NodeRule(unsure=_several_lines, outputs=("", "seed"),
                                  text=Made("text|before|after", _single_line),
                                  more_texts={2: Made("text", _single_line)}),
    "AtelierWritePrompt": _while_running("Write Prompt"),
    "AtelierRandomArtPrompts": _while_running("Random Art Prompts"),
    "AtelierCaptionPictures": _while_running("Caption Pictures"),
    "AtelierReadPrompt": _while_running("Read Prompt"),
    **{kind: _while_running(kind) for kind in ("RegexReplace", "RegexExtract", "JsonExtractString", "StringSubstring",
                                               "TextGenerate", "WD14Tagger|pysssss")},
}
