"""What tests know of the languages that the pack speaks."""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
LANGUAGES = sorted(path.parent.name for path in (ROOT / "locales").glob("*/nodeDefs.json") if path.parent.name != "en")
"""All but English."""
SCRIPTS = {"ja": "[\u3040-\u30ff\u4e00-\u9fff]", "ko": "[\uac00-\ud7a3]", "ru": "[\u0400-\u04ff]",
           "zh": "[\u4e00-\u9fff]"}
"""Characters that every text of the language has some of, unless it is a term that is the same everywhere."""
SAME_EVERYWHERE = {"clip", "lora", "vae", "csv", "cfg", "llm", "alpha", "dropout", "guidance", "prior", "rs-lora",
                   "rslora", "beta1", "beta2", "k", "x", "y", "atelier"}


def read(path: Path) -> dict[str, Any]:
    """A table."""
    return json.loads(path.read_text(encoding="utf-8"))


def foreign(language: str, text: str) -> bool:
    """Whether a text has no letter of its language, where that has letters of its own."""
    words = re.sub(r"\{\w+\}", "", text)
    return (language in SCRIPTS and not re.search(SCRIPTS[language], words) and words.lower() not in SAME_EVERYWHERE
            and re.search(r"[^\W\d_]", words) is not None)


def columns(text: str) -> int:
    """Its width; a Chinese, Japanese or Korean character takes two columns."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)
