"""Compel's prompt syntax: weights, groups, blends and conjunctions.

    cat++  cat--  cat.attend(1.3)     1.1 or 0.9 for each sign, or the number
    (a red cat)++  "a red cat"1.3     the same for several words; nested weights multiply
    (a red cat:1.3)                   the host's own spelling of (a red cat)1.3
    ("a", "b").blend(1, -0.5)         weighted mean of embeddings; , no_normalize at the end leaves the sum as it is
    ("a", "b").and(1, 0.8)            concatenated embeddings; .add is the same
    \\(  \\)  \\"  \\+  \\-                 literal characters

Unpaired signs are text: a lone bracket, a smiley, "--ar". Differences from compel's own parser and their reasons:
docs/decisions/0005-weighted-prompts.md.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import AtelierError

PLUS, MINUS = 1.1, 0.9
"""Weight of one `+` and of one `-`."""
HEAVIEST = 100.0
DEEPEST = 100

_NUMBER = r"\d+(?:\.\d+)?|\.\d+"
_WEIGHT = rf"\++|-+|{_NUMBER}"
_ATTEND = rf"\.attend\(\s*(?P<attend>{_WEIGHT})\s*\)"
_AFTER_GROUP = re.compile(rf"(?:{_ATTEND}|(?P<direct>{_WEIGHT}))(?![\w+-]|\.\d)")
_ATTENDED_WORD = re.compile(rf"(?P<word>(?:\\.|[^\s()\"\\])+?){_ATTEND}")
_INNER_WEIGHT = re.compile(rf"(?P<text>.*\S)\s*:\s*(?P<weight>{_NUMBER})\s*", re.DOTALL)
_OPERATOR = re.compile(r"\s*\.(?P<name>blend|and|add)\((?P<options>[^()]*)\)\s*")
_OPTION = re.compile(rf"[+-]?(?:{_NUMBER})")
_STRAY_OPERATOR = re.compile(r"[)\"\w]\s*\.(blend|and|add|swap)\(")
_ESCAPED = re.compile(r"\\([()\"+\-:\\])")


@dataclass(frozen=True)
class Fragment:
    """Text of one weight."""

    text: str
    weight: float = 1.0


@dataclass(frozen=True)
class Clause:
    """A prompt for one pass of the text encoder: neighbours differ in weight."""

    fragments: tuple[Fragment, ...]

    @property
    def text(self) -> str:
        """The text without weights."""
        return " ".join(fragment.text for fragment in self.fragments)


@dataclass(frozen=True)
class Blend:
    """A weighted mean of clauses' embeddings."""

    clauses: tuple[Clause, ...]
    weights: tuple[float, ...]
    normalize: bool = True
    """Divide by the sum of weights."""


@dataclass(frozen=True)
class WeightedPrompt:
    """Parts whose embeddings are concatenated; usually one."""

    parts: tuple[Clause | Blend, ...]
    weights: tuple[float, ...]


def parse(text: str) -> WeightedPrompt:
    """Read a prompt in compel's syntax.

    Raises:
        AtelierError: an operator is incomplete, has the wrong number of weights, or is not supported.
    """
    text = text.strip()
    whole = _operator(text)
    if whole is None:
        stray = _STRAY_OPERATOR.search(text)
        if stray is not None:
            raise _misplaced(stray[1])
        return WeightedPrompt((_clause(text),), (1.0,))
    name, elements, options = whole
    clauses = tuple(_clause(_unquoted(element)) for element in elements)
    normalize = not (name == "blend" and options[-1:] == ["no_normalize"])
    weights = _weights(name, options if normalize else options[:-1], len(clauses))
    if name != "blend":
        return WeightedPrompt(clauses, weights)
    if normalize and sum(weights) == 0:
        raise AtelierError(f"The weights of .blend({', '.join(options)}) add up to zero.",
                           "Change them, or write no_normalize as the last one.")
    return WeightedPrompt((Blend(clauses, weights, normalize),), (1.0,))


# Operators ----------------------------------------------------------------------------------------------------------

def _operator(text: str) -> tuple[str, list[str], list[str]] | None:
    """Name, elements and options if the whole text is one blend or conjunction."""
    end = _closing(text, 0) if text.startswith("(") else None
    match = _OPERATOR.fullmatch(text, end + 1) if end is not None else None
    if end is None or match is None:
        return None
    options = [option.strip() for option in match["options"].split(",")]
    return match["name"], _elements(text[1:end]), [] if options == [""] else options


def _elements(text: str) -> list[str]:
    """Split at commas outside quotes and brackets."""
    elements, begin, index = [], 0, 0
    while index < len(text):
        inside = _closing(text, index) if text[index] in '("' else None
        if text[index] == "\\":
            index += 1
        elif inside is not None:
            index = inside
        elif text[index] == ",":
            elements.append(text[begin:index])
            begin = index + 1
        index += 1
    return [element.strip() for element in [*elements, text[begin:]]]


def _unquoted(element: str) -> str:
    quoted = element.startswith('"') and _closing(element, 0) == len(element) - 1
    return element[1:-1] if quoted else element


def _weights(name: str, options: Sequence[str], count: int) -> tuple[float, ...]:
    if not options:
        return (1.0,) * count
    if not all(_OPTION.fullmatch(option) for option in options):
        raise AtelierError(f".{name}({', '.join(options)}) holds something that is no number.",
                           "Write one number for each of its prompts.")
    weights = tuple(float(option) for option in options)
    if len(weights) != count:
        raise AtelierError(f".{name}() has {count} prompts and {len(weights)} weights.",
                           "Write one weight for each, or none at all; put prompts that hold commas in quotes.")
    return weights


def _misplaced(name: str) -> AtelierError:
    if name == "swap":
        return AtelierError("The prompt uses .swap(), which needs a change of the sampling loop.",
                            "Leave it out; for a mix of two words use .blend().")
    return AtelierError(f".{name}() is not around the whole prompt, or its brackets do not match.",
                        f'Write ("one prompt", "another prompt").{name}(1, 1) and nothing before or after it.')


# Clauses ------------------------------------------------------------------------------------------------------------

def _clause(text: str) -> Clause:
    fragments = _merged(_fragments(text, 1.0)) or [Fragment("")]
    heaviest = max(fragments, key=lambda fragment: fragment.weight)
    if heaviest.weight > HEAVIEST:
        raise AtelierError(f"{heaviest.text[:40]!r} has the weight {heaviest.weight:g}.",
                           f"Write at most {HEAVIEST:g}; pictures fall apart from about 1.6 on.")
    return Clause(tuple(fragments))


def _fragments(text: str, weight: float, depth: int = 0) -> list[Fragment]:
    """The fragments of a stretch of text, in order; `weight` multiplies theirs."""
    if depth > DEEPEST:
        raise AtelierError(f"The prompt has brackets in brackets, more than {DEEPEST} deep.", "Take some out.")
    found: list[Fragment] = []
    index = 0
    while index < len(text):
        char = text[index]
        if char.isspace():
            index += 1
            continue
        closing = _closing(text, index) if char in '("' else None
        if closing is not None:
            inner, index = text[index + 1:closing], closing + 1
            factor = 1.0
            if char == "(" and (own := _INNER_WEIGHT.fullmatch(inner)):
                inner, factor = own["text"], float(own["weight"])
            if after := _AFTER_GROUP.match(text, index):
                factor *= _factor(after["attend"] or after["direct"])
                index = after.end()
            found += _fragments(inner, weight * factor, depth + 1)
        elif attended := _ATTENDED_WORD.match(text, index):
            found.append(Fragment(_plain(attended["word"]), weight * _factor(attended["attend"])))
            index = attended.end()
        else:
            end = _word_end(text, index)
            word, index = text[index:end], end
            word, signs, rest = _signed(word)
            found.append(Fragment(_plain(word), weight * _factor(signs)))
            if rest:
                found.append(Fragment(rest, weight))
    return found


def _merged(fragments: Sequence[Fragment]) -> list[Fragment]:
    merged: list[Fragment] = []
    for fragment in fragments:
        if merged and merged[-1].weight == fragment.weight:
            merged[-1] = Fragment(f"{merged[-1].text} {fragment.text}", fragment.weight)
        else:
            merged.append(fragment)
    return merged


def _signed(word: str) -> tuple[str, str, str]:
    """A word, its signs and the punctuation behind them; without signs all of it is the word."""
    core = word.rstrip(",.;:!?")
    bare = core.rstrip(core[-1]) if core.endswith(("+", "-")) else core
    if bare == core or bare.endswith("\\") or not any(char.isalnum() for char in bare):
        return word, "", ""
    return bare, core[len(bare):], word[len(core):]


def _factor(weight: str) -> float:
    if not weight:
        return 1.0
    if weight[0] in "+-":
        return (PLUS if weight[0] == "+" else MINUS) ** min(len(weight), 200)
    return float(weight)


def _word_end(text: str, begin: int) -> int:
    """Where a word ends: at a space, after a comma, or before a group that does not follow a letter directly."""
    index = begin
    while index < len(text):
        char = text[index]
        if char.isspace():
            break
        if char == "\\":
            index += 1
        elif char == ",":
            return index + 1
        elif char == "(" and index > begin and not text[index - 1].isalnum() and _closing(text, index) is not None:
            break
        index += 1
    return min(max(index, begin + 1), len(text))


def _closing(text: str, opening: int) -> int | None:
    """Index of the sign that closes the bracket or quote at `opening`; None if nothing does."""
    if text[opening] == '"':
        index = opening + 1
        while index < len(text):
            if text[index] == "\\":
                index += 1
            elif text[index] == '"':
                return index
            index += 1
        return None
    depth, index = 0, opening
    while index < len(text):
        char = text[index]
        if char == "\\":
            index += 1
        elif char == "(":
            depth += 1
        elif char == ")":
            depth -= 1
            if depth == 0:
                return index
        elif char == '"' and text[index - 1] in "( ,":
            closing = _closing(text, index)
            index = index if closing is None else closing
        index += 1
    return None


def _plain(text: str) -> str:
    return _ESCAPED.sub(r"\1", text)
