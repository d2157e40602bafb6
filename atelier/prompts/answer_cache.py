"""Cache answers on disk: queueing the same graph again costs nothing and gives the same prompts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import write_json
from .client import Message
from .endpoints import LanguageModel


@dataclass(frozen=True)
class AnswerCache:
    """One small JSON file per question below `folder`. Delete any of them, or all, at any time.

    A question is the endpoint, the model and its temperature, the messages, the answer's schema and the seed.
    No credential, not even a name, is part of it or is stored.
    """

    folder: Path

    def load(self, llm: LanguageModel, messages: Sequence[Message], schema: dict[str, Any], seed: int) -> str | None:
        """The answer's text, or None if the question was never answered or its file is damaged."""
        try:
            stored = json.loads(self._path(llm, messages, schema, seed).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        answer = stored.get("answer") if isinstance(stored, dict) else None
        return answer if isinstance(answer, str) else None

    def store(self, llm: LanguageModel, messages: Sequence[Message], schema: dict[str, Any], seed: int,
              answer: str) -> None:
        """Store a usable answer."""
        write_json(self._path(llm, messages, schema, seed),
                   {"endpoint": llm.base_url, "model": llm.model, "seed": seed, "answer": answer})

    def _path(self, llm: LanguageModel, messages: Sequence[Message], schema: dict[str, Any], seed: int) -> Path:
        question = [llm.base_url, llm.model, llm.temperature, list(messages), schema, seed]
        text = json.dumps(question, sort_keys=True, ensure_ascii=False)
        digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
        return self.folder / f"{digest[:32]}.json"
