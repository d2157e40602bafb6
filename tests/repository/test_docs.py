"""Help pages and texts in other languages cover every node, and speak of what exists."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
ENGLISH: dict[str, Any] = json.loads((ROOT / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8"))
LANGUAGES = sorted(path.parent.name for path in (ROOT / "locales").glob("*/nodeDefs.json") if path.parent.name != "en")
# Characters that every text of the language has some of, unless it is a term that is the same everywhere.
SCRIPTS = {"ja": "[\u3040-\u30ff\u4e00-\u9fff]", "ko": "[\uac00-\ud7a3]", "zh": "[\u4e00-\u9fff]"}
SAME_EVERYWHERE = {"CLIP", "LoRA", "VAE", "CSV", "CFG", "Alpha", "RS-LoRA", "Beta1", "Beta2"}
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "web" / "docs").glob("*.md")}


def test_every_node_has_a_help_page_and_no_page_is_left_over() -> None:
    assert PAGES.keys() == ENGLISH.keys()


@pytest.mark.parametrize("node", PAGES)
def test_a_help_page_says_what_it_does_its_inputs_an_example_and_what_goes_wrong(node: str) -> None:
    page = PAGES[node]
    assert page.startswith(f"# {ENGLISH[node]['display_name']}\n\n")
    assert re.findall(r"^## (.*)$", page, re.MULTILINE) == ["Inputs", "Example", "What goes wrong"]
    assert all(len(part.strip()) > 30 for part in re.split(r"^#+ .*$", page, flags=re.MULTILINE)[1:])


@pytest.mark.parametrize("node", PAGES)
def test_a_help_page_names_every_input(node: str) -> None:
    inputs = PAGES[node].split("## Inputs")[1].split("## Example")[0]
    named = set(re.findall(r"`(\w+)`", inputs))
    assert named >= ENGLISH[node]["inputs"].keys()


def test_the_glossary_explains_what_beginners_meet_first() -> None:
    glossary = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    entries = re.findall(r"^\*\*(.+?)\.\*\*", glossary, re.MULTILINE)
    explained = {word for entry in entries for word in entry.split(", ")}
    assert explained >= {"Base model", "Checkpoint", "CFG", "LoRA", "PEFT", "Text encoder", "U-Net", "VAE", "Seed",
                         "Fine-tuning"}
    assert "(docs/glossary.md)" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_language_is_one_that_the_editor_offers() -> None:
    offered = {"zh", "zh-TW", "ru", "ja", "ko", "fr", "es", "ar", "tr", "pt-BR", "fa", "he"}
    assert {"ja", "ko", "zh"} <= set(LANGUAGES) <= offered


def texts(node: dict[str, Any]) -> dict[str, str]:
    """Every text of a node by its place."""
    found = {key: node[key] for key in ("display_name", "description")}
    for part in ("inputs", "outputs"):
        for name, words in node[part].items():
            found |= {f"{part}.{name}.{key}": words[key] for key in ("name", "tooltip")}
    return found


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_covers_every_node_input_and_output(language: str) -> None:
    path = ROOT / "locales" / language / "nodeDefs.json"
    translated = json.loads(path.read_text(encoding="utf-8"))
    assert translated.keys() == ENGLISH.keys()
    for node, english in ENGLISH.items():
        here = texts(translated[node])
        assert here.keys() == texts(english).keys(), node
        assert all(text.strip() for text in here.values()), node
        # Names may be the same word; a sentence that is has not been translated.
        same = [place for place, text in texts(english).items() if " " in text and text.endswith(".")
                and here[place] == text]
        assert not same, f"{node}: {same}"


@pytest.mark.parametrize("language", sorted(SCRIPTS.keys() & set(LANGUAGES)))
def test_a_language_with_letters_of_its_own_is_written_in_them(language: str) -> None:
    translated = json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))
    for node, words in translated.items():
        foreign = {place: text for place, text in texts(words).items()
                   if not re.search(SCRIPTS[language], text) and text not in SAME_EVERYWHERE}
        assert not foreign, f"{node}: {foreign}"


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_keeps_what_must_not_be_translated(language: str) -> None:
    """Numbers, file endings and words in braces are the same in every language."""
    translated = json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))
    fixed = re.compile(r"\{[a-z|]+\}|models/\w+|\.(?:json|toml|txt|safetensors|ckpt)\b", re.ASCII)
    for node, english in ENGLISH.items():
        here = texts(translated[node])
        for place, text in texts(english).items():
            assert sorted(fixed.findall(text)) == sorted(fixed.findall(here[place])), f"{node} {place}"
