"""The token nodes on the host's own text encoders, and the warning in the trainer's report."""

from __future__ import annotations

import logging
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from kit.pack import node_classes, pack_module

from atelier.models.tokenizer import load_tokenizer

pytestmark = pytest.mark.host


@pytest.fixture(scope="module")
def nodes(pack: ModuleType) -> dict[str, Any]:
    return node_classes(pack)


def host_clip(family: str) -> Any:
    """The host's tokenizer of a family, with a small random embedding table."""
    from comfy import sd1_clip, sdxl_clip

    tokenizer = {"sd1": sd1_clip.SD1Tokenizer, "sdxl": sdxl_clip.SDXLTokenizer}[family]()
    embedding = torch.nn.Embedding(49408, 4)
    part = SimpleNamespace(transformer=SimpleNamespace(get_input_embeddings=lambda: embedding))
    return SimpleNamespace(tokenizer=tokenizer, tokenize=tokenizer.tokenize_with_weights,
                           cond_stage_model=SimpleNamespace(clip_l=part, clip_g=part))


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_the_table_is_transformers_own(nodes: dict[str, Any], family: str) -> None:
    text = "A cat wearing neon-glasses, " * 12
    table, count, beyond, picture = nodes["AtelierTokens"].execute(clip=host_clip(family), text=text).result
    tokenizer = load_tokenizer()
    ids = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
    rows = [line.split() for line in table.split("\n")[2:]]
    assert [int(row[2]) for row in rows] == ids
    assert count == len(ids) == 84
    assert beyond == tokenizer.decode(ids[75:]).strip()
    assert table.startswith("clip_l, clip_g: " if family == "sdxl" else "clip_l: ")
    assert picture.shape[0] == 1 and picture.shape[2] == 768 and picture.std() > 0.05


def test_weights_are_the_hosts(nodes: dict[str, Any]) -> None:
    table = nodes["AtelierTokens"].execute(clip=host_clip("sd1"), text="a (red (cat:1.5)) \\(x\\)").result[0]
    weights = {row[4]: row[3] for row in (line.split() for line in table.split("\n")[2:])}
    assert weights == {"a": "1", "red": "1.1", "cat": "1.5", "(": "1", "x": "1", ")": "1"}


def test_a_trigger_with_its_norm(nodes: dict[str, Any]) -> None:
    clip = host_clip("sd1")
    report, verdict, suggestions = nodes["AtelierCheckTrigger"].execute(clip=clip, word="ohwx").result
    number, = load_tokenizer()("ohwx", add_special_tokens=False).input_ids
    norm = clip.cond_stage_model.clip_l.transformer.get_input_embeddings().weight[number].norm().item()
    assert verdict == "one rare token" and f"rank {number + 1} of 49408" in report
    assert f"embedding norm: {norm:.3f}" in report and len(suggestions.split(", ")) == 8
    # Brackets are letters here, not weights.
    assert "several tokens" in nodes["AtelierCheckTrigger"].execute(clip=clip, word="(ohwx)").result[0]


def test_other_text_encoders_are_refused_in_words(nodes: dict[str, Any], pack: ModuleType) -> None:
    t5 = SimpleNamespace(tokenize=lambda text, return_word_ids: {"t5xxl": [[(1, 1.0, 1)]]})
    with pytest.raises(pack_module(pack, "atelier.errors").AtelierError, match="this one is t5xxl"):
        nodes["AtelierTokens"].execute(clip=t5, text="a cat")


def test_the_trainer_warns_in_log_and_report(pack: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    warning = pack_module(pack, "nodes.tokens").trigger_warning
    with caplog.at_level(logging.WARNING, logger="atelier"):
        assert warning("ohwx") == warning("") == ""
        assert not caplog.records
        text = warning("dog")
    assert "'dog' is a common word" in text
    assert [record.getMessage() for record in caplog.records] == [text]


def test_the_tokenizer_comes_from_the_host(pack: ModuleType) -> None:
    assert node_classes(pack)  # loads as the host does
    folder = pack_module(pack, "atelier.models.tokenizer")._folder
    assert folder.name == "sd1_tokenizer" and (folder / "merges.txt").is_file()
