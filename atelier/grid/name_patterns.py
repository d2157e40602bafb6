"""Fill what ComfyUI's own nodes fill in names of files: `%date:yyyy-MM-dd%`, `%year%`, `%width%`, `%Node.widget%`."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

_PATTERN = re.compile(r"%([^%]+)%")
_DATE_PART = re.compile(r"dd?|MM?|hh?|mm?|ss?|y{2,4}")
_FORBIDDEN = re.compile(r'[/?<>\\:*|"\x00-\x1f\x7f]')


def fill_pattern(text: str, size: tuple[int, int], now: time.struct_time,
                 nodes: Mapping[str, Any] | None = None) -> str:
    """`text` with the patterns filled that the host and its editor know; anything else between % stays.

    Args:
        text: A name that a person typed.
        size: (width, height) of the picture in pixels.
        now: The time of saving. Editor patterns have no padding but as written: `d` gives 1, `dd` 01.
        nodes: The graph in API format, for `%Node.widget%`: a node's class or title, and a widget that is not linked.
    """
    numbers = {"width": size[0], "height": size[1], "year": now.tm_year}
    padded = {"month": now.tm_mon, "day": now.tm_mday, "hour": now.tm_hour, "minute": now.tm_min, "second": now.tm_sec}

    def fill(match: re.Match[str]) -> str:
        name = match[1]
        if name in numbers:
            return str(numbers[name])
        if name in padded:
            return f"{padded[name]:02}"
        if name.startswith("date:"):
            return _DATE_PART.sub(lambda part: _date_part(part[0], now), name.removeprefix("date:"))
        node, dot, widget = name.partition(".")
        value = _widget(nodes or {}, node, widget) if dot else None
        return match[0] if value is None else _FORBIDDEN.sub("_", value)

    return _PATTERN.sub(fill, text)


def _date_part(pattern: str, now: time.struct_time) -> str:
    if pattern[0] == "y":
        return {"yy": f"{now.tm_year % 100:02}", "yyyy": str(now.tm_year)}.get(pattern, pattern)
    value = {"d": now.tm_mday, "M": now.tm_mon, "h": now.tm_hour, "m": now.tm_min, "s": now.tm_sec}[pattern[0]]
    return str(value).zfill(len(pattern))


def _widget(nodes: Mapping[str, Any], name: str, widget: str) -> str | None:
    """A widget's value as the editor writes it; of the first node of that class, else of that title."""
    whole = [node for node in nodes.values() if isinstance(node, dict) and isinstance(node.get("inputs"), dict)]
    of_class = [node for node in whole if node.get("class_type") == name]
    titled = [node for node in whole if isinstance(node.get("_meta"), dict) and node["_meta"].get("title") == name]
    value = next((node["inputs"].get(widget) for node in of_class or titled), None)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value) if isinstance(value, str | int | float) else None
