"""The token table on the host's own text encoders."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from kit.host_clip import tokenizing_clip
from kit.pack import pack_module

from atelier.models.tokenizer import load_tokenizer

pytestmark = pytest.mark.host


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_the_table_equals_the_tokens_of_transformers(nodes: dict[str, Any], family: str) -> None:
    text = "A cat wearing neon-glasses, " * 12
    table, count, beyond, picture = nodes["AtelierTokens"].execute(clip=tokenizing_clip(family), text=text).result
    tokenizer = load_tokenizer()
    ids = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
    rows = [line.split() for line in table.split("\n")[2:]]
    assert [int(row[2]) for row in rows] == ids
    assert count == len(ids) == 84
    assert beyond == tokenizer.decode(ids[75:]).strip()
    assert table.startswith("clip_l, clip_g: " if family == "sdxl" else "clip_l: ")
    assert picture.shape[0] == 1 and picture.shape[2] == 768 and picture.std() > 0.05


def test_weights_are_the_hosts(nodes: dict[str, Any]) -> None:
    table = nodes["AtelierTokens"].execute(clip=tokenizing_clip("sd1"), text="a (red (cat:1.5)) \\(x\\)").result[0]
    weights = {row[4]: row[3] for row in (line.split() for line in table.split("\n")[2:])}
    assert weights == {"a": "1", "red": "1.1", "cat": "1.5", "(": "1", "x": "1", ")": "1"}


def test_other_text_encoders_raise_an_error(nodes: dict[str, Any], pack: ModuleType) -> None:
    t5 = SimpleNamespace(tokenize=lambda text, return_word_ids: {"t5xxl": [[(1, 1.0, 1)]]})
    with pytest.raises(pack_module(pack, "atelier.errors").AtelierError, match="this one is t5xxl"):
        nodes["AtelierTokens"].execute(clip=t5, text="a cat")
