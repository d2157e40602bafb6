"""What sample pictures show, by which those of other settings are told apart."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

from .request.outputs import NO_SCORE, SampleConfig


def settings_digest(config: SampleConfig, score_model: str) -> str:
    """8 hex digits of what a round of samples shows and is scored by (not of how often one is drawn); empty where none
    is wanted.

    Args:
        score_model: Digest of the model that scores; empty for none.
    """
    if not config.prompts:
        return ""
    return hashlib.sha256(json.dumps(settings(config, score_model), sort_keys=True).encode()).hexdigest()[:8]


def settings(config: SampleConfig, score_model: str) -> dict[str, Any]:
    """What a round of samples shows, as JSON values. What came later counts where it is used."""
    values = {name: value for name, value in asdict(config).items()
              if name not in ("sample_every", "score_model", "sample_seeds")}
    if len(config.prompts) > 1:  # once, all lines were one prompt
        values["prompts"] = len(config.prompts)
    if config.sample_seeds.strip():
        values["sample_seeds"] = list(config.seeds(0))
    if config.score_model != NO_SCORE:
        values["score_model"] = score_model
    return values
