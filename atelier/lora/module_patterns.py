"""Match names of modules against PEFT's patterns, in a time that no pattern can stretch.

PEFT's `alpha_pattern` maps names or regular expressions to values; one applies to a module whose path, or a part of it
that begins behind a dot, it matches to the end. The patterns come with the file, so they are not handed to a
backtracking engine, in which a few characters can take years. Plain names are compared. Of regular expressions the
common part is read (characters, `.`, classes, groups, `|`, `*`, `+`, `?`) and all ways through one are followed at once
(V. M. Glushkov, "The abstract theory of automata", 1961), which takes at most the product of both lengths.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

MOST_NAMES = 20_000
MOST_EXPRESSIONS = 64
LONGEST = 200
"""Characters of a regular expression."""
MOST_BRACKETS = 16
"""Brackets within each other."""

_PLAIN = re.compile(r"[\w.\-]+")
_MOST_REMEMBERED = 20_000


class BadPattern(ValueError):
    """A pattern that is not read. Its text says why, without the pattern."""


class ModulePatterns:
    """Values by pattern; the first that matches counts, as in PEFT.

    Raises:
        BadPattern: there are too many, or one is no regular expression of the kind that is read.
    """

    def __init__(self, values: Mapping[str, float]) -> None:
        self._names: dict[str, tuple[int, float]] = {}
        self._expressions: list[tuple[int, float, _Expression]] = []
        for place, (pattern, value) in enumerate(values.items()):
            if _PLAIN.fullmatch(pattern):
                self._names[pattern] = place, value
            else:
                self._expressions.append((place, value, _parse(pattern)))
            if len(self._names) > MOST_NAMES or len(self._expressions) > MOST_EXPRESSIONS:
                raise BadPattern(f"there are more than {MOST_EXPRESSIONS} expressions or {MOST_NAMES} names")

    def find(self, path: str) -> float | None:
        """The value for the module at `path`; None if no pattern matches."""
        parts = path.split(".")
        ends = (".".join(parts[start:]) for start in range(len(parts)))
        found = [self._names[end] for end in ends if end in self._names]
        found += [(place, value) for place, value, expression in self._expressions if expression.matches(path)]
        return min(found)[1] if found else None


@dataclass(kw_only=True)
class _Expression:
    """The automaton of an expression: its places are the characters that it asks for, as bits of a number."""

    accepts: list[Callable[[str], bool]] = field(default_factory=list)
    """Of each place, whether a character is one that it asks for."""
    follow: list[int] = field(default_factory=list)
    """Of each place, those that may come next."""
    first: int = 0
    last: int = 0
    from_start: bool = False
    """Whether it begins at the start of the path only, as with a leading `^`."""
    _after: dict[int, int] = field(default_factory=dict)
    _asking: dict[str, int] = field(default_factory=dict)

    def matches(self, path: str) -> bool:
        """Whether the path matches to its end, from its start or from behind a dot."""
        reached, begins = 0, True
        for character in path:
            possible = self._next(reached) | (self.first if begins else 0)
            reached = possible & self._asked(character)
            begins = character == "." and not self.from_start
        return bool(reached & self.last)

    def _next(self, reached: int) -> int:
        if reached not in self._after:
            if len(self._after) > _MOST_REMEMBERED:
                self._after.clear()
            following = 0
            for place in _bits(reached):
                following |= self.follow[place]
            self._after[reached] = following
        return self._after[reached]

    def _asked(self, character: str) -> int:
        if character not in self._asking:
            self._asking[character] = sum(1 << place for place, accept in enumerate(self.accepts) if accept(character))
        return self._asking[character]


@dataclass(frozen=True)
class _Part:
    """A part of an expression: whether it can be empty, and the places that it can begin and end with."""

    empty: bool
    first: int
    last: int


_CLASSES: dict[str, Callable[[str], bool]] = {
    "d": str.isdecimal, "w": lambda c: c.isalnum() or c == "_", "s": str.isspace,
    "D": lambda c: not c.isdecimal(), "W": lambda c: not (c.isalnum() or c == "_"), "S": lambda c: not c.isspace()}


class _Parser:
    def __init__(self, pattern: str, from_start: bool) -> None:
        self.rest, self.place, self.depth = pattern, 0, 0
        self.from_start = from_start
        self.made = _Expression(from_start=from_start)

    def peek(self) -> str:
        return self.rest[self.place:self.place + 1]

    def take(self) -> str:
        character = self.peek()
        self.place += 1
        return character

    def choice(self) -> _Part:
        self.depth += 1
        if self.depth > MOST_BRACKETS:
            raise BadPattern(f"brackets are nested more than {MOST_BRACKETS} deep")
        part = self.sequence()
        while self.peek() == "|":
            if self.from_start and self.depth == 1:
                raise BadPattern("^ stands before |")
            self.take()
            other = self.sequence()
            part = _Part(part.empty or other.empty, part.first | other.first, part.last | other.last)
        self.depth -= 1
        return part

    def sequence(self) -> _Part:
        part = _Part(True, 0, 0)
        while self.peek() not in ("", "|", ")"):
            other = self.repeated()
            self.join(part.last, other.first)
            part = _Part(part.empty and other.empty, part.first | (other.first if part.empty else 0),
                         other.last | (part.last if other.empty else 0))
        return part

    def repeated(self) -> _Part:
        part = self.atom()
        if not self.peek() or self.peek() not in "*+?":
            return part
        sign = self.take()
        if sign != "?":
            self.join(part.last, part.first)
        if self.peek() == "?":
            self.take()  # as few as possible: to the end, it matches the same
        return _Part(part.empty or sign != "+", part.first, part.last)

    def atom(self) -> _Part:
        character = self.take()
        if character == "(":
            if self.rest.startswith("?:", self.place):
                self.place += 2
            part = self.choice()
            if self.take() != ")":
                raise BadPattern("a bracket is not closed")
            return part
        if character == "[":
            return self.one(self.char_class())
        if character == ".":
            return self.one(lambda c: c != "\n")
        if character == "\\":
            return self.one(self.escape())
        if character in "*+?{}^$)" or not character:
            raise BadPattern(f"{character or 'its end'} stands where it is not read")
        return self.one(lambda c: c == character)

    def escape(self) -> Callable[[str], bool]:
        character = self.take()
        if character in _CLASSES:
            return _CLASSES[character]
        if not character or character.isalnum():
            raise BadPattern(f"\\{character} is not read")
        return lambda c: c == character

    def char_class(self) -> Callable[[str], bool]:
        negated = self.peek() == "^"
        self.place += negated
        accepted: list[Callable[[str], bool]] = []
        while self.peek() != "]" or not accepted:
            character = self.take()
            if not character:
                raise BadPattern("a class is not closed")
            if character == "\\":
                accepted.append(self.escape())
                continue
            end = character
            if self.peek() == "-" and self.rest[self.place + 1:self.place + 2] not in ("]", ""):
                self.take()
                end = self.take()
                if end == "\\" or end < character:
                    raise BadPattern("a class has a range that is not read")
            accepted.append(lambda c, low=character, high=end: low <= c <= high)
        self.take()
        return lambda c: any(test(c) for test in accepted) != negated

    def one(self, accepts: Callable[[str], bool]) -> _Part:
        self.made.accepts.append(accepts)
        self.made.follow.append(0)
        bit = 1 << (len(self.made.accepts) - 1)
        return _Part(False, bit, bit)

    def join(self, before: int, after: int) -> None:
        for place in _bits(before):
            self.made.follow[place] |= after


def _parse(pattern: str) -> _Expression:
    if not pattern or len(pattern) > LONGEST:
        raise BadPattern(f"it has {len(pattern)} characters")
    from_start = pattern.startswith("^")
    body = pattern.removeprefix("^")
    if body.endswith("$") and not body.endswith("\\$"):
        body = body[:-1]
    parser = _Parser(body, from_start)
    part = parser.choice()
    if parser.peek():
        raise BadPattern("a bracket is closed that was not opened")
    made = parser.made
    made.first, made.last = part.first, part.last
    return made


def _bits(number: int) -> list[int]:
    places = []
    while number:
        low = number & -number
        places.append(low.bit_length() - 1)
        number ^= low
    return places
