"""The tokenizer built from merges is the one that the host and transformers use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kit.offline import no_network

from atelier.errors import AtelierError
from atelier.models import tokenizer

TEXTS = ["", "a cat", "A  CAT\twearing\nneon-glasses!!", "l'été à Zürich — naïve façade", "日本語のテキスト", "🎨🖌️ art",
         "it's 12345 o'clock; don't", "<|endoftext|> inside", "((masterpiece:1.2)), [b|c]", "ﬁne ①", "word " * 100]


@pytest.fixture
def host_tokenizer() -> Path:
    from tools import comfyui

    found = comfyui.find()
    assert found is not None
    return found / "comfy" / "sd1_tokenizer"


@pytest.mark.host
def test_vocabulary_is_the_hosts(host_tokenizer: Path) -> None:
    vocabulary = json.loads((host_tokenizer / "vocab.json").read_text(encoding="utf-8"))
    assert tokenizer.vocabulary(tokenizer.read_merges()) == vocabulary


@pytest.mark.host
@pytest.mark.parametrize("pad", ["<|endoftext|>", "!"])
def test_encodings_are_the_hosts(pad: str, host_tokenizer: Path) -> None:
    from transformers import CLIPTokenizer

    theirs = CLIPTokenizer.from_pretrained(host_tokenizer, pad_token=pad)
    with no_network():
        ours = tokenizer.load_tokenizer(pad)
    settings = {"padding": "max_length", "truncation": True, "max_length": 77}
    assert ours(TEXTS, **settings).input_ids == theirs(TEXTS, **settings).input_ids
    assert ours.model_max_length == 77
    assert ours.decode(ours("a cat wearing neon-glasses").input_ids, skip_special_tokens=True) \
        == theirs.decode(theirs("a cat wearing neon-glasses").input_ids, skip_special_tokens=True)


@pytest.mark.host
def test_the_hosts_own_merges_can_be_used(host_tokenizer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from_package = tokenizer.read_merges()
    monkeypatch.setattr(tokenizer, "_folder", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    tokenizer.use_tokenizer(host_tokenizer)
    assert tokenizer.read_merges() == from_package


def test_published_ids() -> None:
    """The well-known numbers of CLIP's standard example."""
    ids = tokenizer.load_tokenizer()("a photo of a cat").input_ids
    assert ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert tokenizer.load_tokenizer("!").pad_token_id == 0


def test_nothing_to_build_it_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tokenizer, "_folder", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(AtelierError, match="pip install open_clip_torch"):
        tokenizer.read_merges()
    with pytest.raises(AtelierError, match=r"no merges\.txt"):
        tokenizer.use_tokenizer(tmp_path)
    (tmp_path / "merges.txt").write_text("#version: 0.2\ni n\n")
    tokenizer.use_tokenizer(tmp_path)
    with pytest.raises(AtelierError, match="not CLIP's list"):
        tokenizer.read_merges()
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "in\n" * tokenizer.MERGES)
    tokenizer.use_tokenizer(tmp_path)
    with pytest.raises(AtelierError, match="not CLIP's list"):
        tokenizer.read_merges()
