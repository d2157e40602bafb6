"""Check Trigger on the host's own text encoders."""

from __future__ import annotations

from typing import Any

import pytest
from kit.host_clip import tokenizing_clip

from atelier.models.tokenizer import load_tokenizer

pytestmark = pytest.mark.host


def test_the_report_has_verdict_rank_and_norm(nodes: dict[str, Any]) -> None:
    clip = tokenizing_clip("sd1")
    report, verdict, suggestions = nodes["AtelierCheckTrigger"].execute(clip=clip, word="ohwx").result
    number, = load_tokenizer()("ohwx", add_special_tokens=False).input_ids
    norm = clip.cond_stage_model.clip_l.transformer.get_input_embeddings().weight[number].norm().item()
    assert verdict == "one rare token" and f"rank {number + 1} of 49408" in report
    assert f"embedding norm: {norm:.3f}" in report and len(suggestions.split(", ")) == 8
    # Brackets are read as characters, not as weights.
    assert "several tokens" in nodes["AtelierCheckTrigger"].execute(clip=clip, word="(ohwx)").result[0]
