"""What ComfyUI's node classes pass on, as a table: the only place that knows a class by its name.

A class that is not here is understood if its inputs have the usual names; what it makes of them is not known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...prompt_lines import prompt_lines
from . import node_texts
from .node_texts import Texts

Inputs = Mapping[str, Any]


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
class Composed:
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
    text: Composed | None = None
    more_texts: Mapping[int, Composed] = field(default_factory=dict)
    """By output, for those that say something else."""
    outputs: tuple[str, ...] = ()
    """The inputs that outputs hand on, by output, with | between names; "" for one that makes something new."""
    pipes: tuple[str, ...] = ()
    """Inputs that bring several values at once; what the node has no input for comes from the first that is linked."""
    samples: bool = False
    """Whether it is a sampler that gets its prompts through a pipe."""
    unsure: Callable[[Inputs], str] | None = None
    """Why the graph does not say what the node gives; "" where it does."""


def _parts(*names: str, by: str = "") -> Composed:
    """The inputs of these names, with another one's text between them."""
    return Composed("|".join([*names, by or "-"]),
                lambda texts: node_texts.joined([texts[name] for name in names], texts[by]))


def _several_lines(inputs: Inputs) -> str:
    text = inputs.get("text")
    single = isinstance(text, str) and len(prompt_lines(text)) == 1
    return "" if single else "Prompt List gives several, and the graph does not say which"


def _with_wildcards(inputs: Inputs) -> str:
    texts = [text for name in ("text", "positive", "negative") if isinstance(text := inputs.get(name), str)]
    template = any(re.search(r"\{[^{}]*\|[^{}]*\}|__.+?__", text) for text in texts)
    return "its wildcards are filled in while the graph runs" if template else ""


def _while_running(name: str) -> NodeRule:
    return NodeRule(unsure=lambda _: f"{name} makes it while the graph runs")


_SIDES = NodeRule(outputs=("positive", "negative"))
_CONTEXT = ("", "model", "clip", "vae", "positive", "negative", "latent", "images", "seed")
_BIG_CONTEXT = (*_CONTEXT, "steps", "step_refiner", "cfg", "ckpt_name", "sampler", "scheduler", "clip_width",
                "clip_height", "text_pos_g", "text_pos_l", "text_neg_g", "text_neg_l", "mask", "control_net", "denoise")
_EASY_PIPE = ("", "model", "positive|pos", "negative|neg", "latent", "vae", "clip", "image", "seed")
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
    "easy textIndexSwitch": NodeRule(passes=Chosen("index", "text{}")),
    "easy conditioningIndexSwitch": NodeRule(passes=Chosen("index", "cond{}")),
    "easy textSwitch": NodeRule(passes=Chosen("input", "text{}")),
    "easy showAnything": NodeRule(passes=First("anything")),
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
    **dict.fromkeys(("easy preSampling", "easy preSamplingAdvanced", "easy pipeIn", "easy pipeEdit",
                     "easy pipeEditPrompt"), NodeRule(pipes=("pipe",), unsure=_with_wildcards)),
    "easy pipeOut": NodeRule(outputs=_EASY_PIPE, pipes=("pipe",)),
    **dict.fromkeys(("easy kSampler", "easy fullkSampler", "easy kSamplerTiled"),
                    NodeRule(outputs=("", "", *_EASY_PIPE[1:4]), pipes=("pipe",), samples=True)),
    "KSampler Config (rgthree)": NodeRule(outputs=("steps_total", "refiner_step", "cfg", "sampler_name", "scheduler")),
    # Have both prompts.
    **dict.fromkeys(("ControlNetApplyAdvanced", "ControlNetApplySD3", "ControlNetInpaintingAliMamaApply",
                     "InpaintModelConditioning", "InstructPixToPixConditioning",
                     "ACN_AdvancedControlNetApply", "ACN_AdvancedControlNetApply_v2"), _SIDES),
    "easy fullLoader": NodeRule(outputs=("", "", "", "", "positive", "negative"), unsure=_with_wildcards),
    **dict.fromkeys(("easy a1111Loader", "easy comfyLoader"), NodeRule(unsure=_with_wildcards)),
    "Efficient Loader": NodeRule(outputs=("model", "positive", "negative", "", "", "clip")),
    "Eff. Loader SDXL": NodeRule(outputs=("",)),
    "KSampler (Efficient)": NodeRule(outputs=("model", "positive", "negative")),
    "KSampler Adv. (Efficient)": NodeRule(outputs=("model", "positive", "negative")),
    "KSampler SDXL (Eff.)": NodeRule(outputs=("",), pipes=("sdxl_tuple",), samples=True),
    # Make texts of texts.
    "StringConcatenate": NodeRule(text=_parts("string_a", "string_b", by="delimiter")),
    "StringReplace": NodeRule(text=Composed("string|find|replace", lambda t: node_texts.replaced(
        t["string"], t["find"], t["replace"]))),
    "StringFormat": NodeRule(text=Composed(r"f_string|values\..+", node_texts.formatted)),
    "StringTrim": NodeRule(text=Composed("string|mode", node_texts.trimmed)),
    "CaseConverter": NodeRule(text=Composed("string|mode", node_texts.cased)),
    "StringFunction|pysssss": NodeRule(text=Composed("action|tidy_tags|text_[abc]", node_texts.string_function)),
    "Text Concatenate": NodeRule(text=Composed("delimiter|clean_whitespace|text_[a-z]", lambda t: node_texts.filled(
        t, "delimiter", trim=t["clean_whitespace"] == "true"))),
    "CR Text Concatenate": NodeRule(text=_parts("text1", "text2", by="separator")),
    "CR Text Replace": NodeRule(text=Composed(r"text|find\d|replace\d", lambda t: node_texts.all_replaced(
        t["text"], *((t[f"find{n}"], t[f"replace{n}"]) for n in (1, 2, 3))))),
    "JoinStrings": NodeRule(text=_parts("string1", "string2", by="delimiter")),
    "JoinStringMulti": NodeRule(text=Composed(r"delimiter|string_\d+", lambda t: node_texts.numbered(t, "delimiter"))),
    "easy promptConcat": NodeRule(text=_parts("prompt1", "prompt2", by="separator")),
    "promptConcat": NodeRule(text=_parts("prompt1", "prompt2", by="separator")),
    "easy promptReplace": NodeRule(text=Composed(r"prompt|find\d|replace\d", lambda t: node_texts.all_replaced(
        t["prompt"], *((t[f"find{n}"], t[f"replace{n}"]) for n in (1, 2, 3))))),
    "easy wildcards": NodeRule(unsure=_with_wildcards),
    "ImpactWildcardProcessor": NodeRule(text=Composed("populated_text", node_texts.populated)),
    "ImpactWildcardEncode": NodeRule(text=Composed("populated_text", node_texts.populated), outputs=("model", "clip")),
    "CustomCombo": NodeRule(text=Composed("choice", lambda t: t["choice"])),
    # Give what the graph does not say.
    "AtelierPromptList": NodeRule(unsure=_several_lines, outputs=("", "seed"),
                                  text=Composed("text|before|after", node_texts.single_line),
                                  more_texts={2: Composed("text", node_texts.single_line)}),
    "AtelierWritePrompt": _while_running("Write Prompt"),
    "AtelierRandomArtPrompts": _while_running("Random Art Prompts"),
    "AtelierCaptionPictures": _while_running("Caption Pictures"),
    "AtelierReadPrompt": _while_running("Read Prompt"),
    **{kind: _while_running(kind) for kind in ("RegexReplace", "RegexExtract", "JsonExtractString", "StringSubstring",
                                               "TextGenerate", "WD14Tagger|pysssss")},
}
