"""Help pages and texts in other languages cover every node, and speak of what exists."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from kit.languages import LANGUAGES, SCRIPTS, columns, foreign, read

ROOT = Path(__file__).resolve().parent.parent.parent
ENGLISH = read(ROOT / "locales" / "en" / "nodeDefs.json")
# Columns that a text has room for: a node's title in its narrowest
# node, a label beside its value, an output beside an input; the last is as much as can be read before it goes away.
ROOM = {"display_name": 36, "inputs.name": 26, "outputs.name": 24, "description": 280, "tooltip": 280}
# What the editor calls those of its nodes that texts name.
CORE_NAMES = {
    "es": {"Cargar LoRA", "Cargar Modelo LoRA", "Cargar Punto de Control", "Cargar Modelo de Difusión",
           "Cargar Modelo de Escala Superior", "Guardar Imagen"},
    "fr": {"Charger LoRA", "Charger le modèle LoRA", "Charger Point de Contrôle", "Charger Modèle Diffusion",
           "Charger le modèle de mise à l'échelle", "Enregistrer Image"},
    "ru": {"Загрузить LoRA", "Загрузить модель LoRA", "Загрузить сheckpoint", "Загрузить модель диффузии",
           "Загрузить модель апскейла", "Сохранить изображение"},
}
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


CHINESE = {path.parent.name: path.read_text(encoding="utf-8") for path in (ROOT / "web" / "docs").glob("*/zh.md")}


def test_every_node_has_a_chinese_page_and_no_page_is_left_over() -> None:
    assert CHINESE.keys() == PAGES.keys()
    assert sorted(path.name for path in (ROOT / "web" / "docs").glob("*/*")) == ["zh.md"] * len(CHINESE)


@pytest.mark.parametrize("node", CHINESE)
def test_a_chinese_page_says_what_the_english_one_says(node: str) -> None:
    """As far as that can be told: the same parts and points, names, numbers and addresses; labels as on the node."""
    page, english, words = CHINESE[node], PAGES[node], read(ROOT / "locales" / "zh" / "nodeDefs.json")[node]
    assert page.startswith(f"# {words['display_name']}\n\n")
    assert re.findall(r"^## (.*)$", page, re.MULTILINE) == ["输入", "示例", "可能的问题"]
    assert page.count("\n- ") == english.count("\n- ")
    assert set(page.split("`")[1::2]) == set(english.split("`")[1::2])
    # Models are called "SD 1.x" more often in one language than in the other.
    for pattern in (r"\d+(?:\.\d+)?(?!\d|\.x)", r"https?://[^\s)\"]*"):
        assert set(re.findall(pattern, page)) == set(re.findall(pattern, english)), pattern
    assert all(f"`{name}`（{text['name']}）" in page for name, text in words["inputs"].items())
    assert all(re.search("[\u4e00-\u9fff]", line) for line in re.findall(r"^- .*$", page, re.MULTILINE))


def test_the_glossary_explains_what_beginners_meet_first() -> None:
    glossary = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    entries = re.findall(r"^\*\*(.+?)\.\*\*", glossary, re.MULTILINE)
    explained = {word for entry in entries for word in entry.split(", ")}
    assert explained >= {"Base model", "Checkpoint", "CFG", "LoRA", "PEFT", "Text encoder", "U-Net", "VAE", "Seed",
                         "Fine-tuning", "Flow matching", "Shift", "Block swap", "Quantised", "LoHa", "LoKr", "DoRA",
                         "Distilled model", "Gradient checkpointing", "Prediction type", "Optimiser", "Preset"}
    assert "(docs/glossary.md)" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_language_is_one_that_the_editor_offers() -> None:
    offered = {"zh", "zh-TW", "ru", "ja", "ko", "fr", "es", "ar", "tr", "pt-BR", "fa", "he"}
    assert {"es", "fr", "ja", "ko", "ru", "zh"} <= set(LANGUAGES) <= offered


def nodes_in(language: str) -> dict[str, Any]:
    return read(ROOT / "locales" / language / "nodeDefs.json")


def texts(node: dict[str, Any]) -> dict[str, str]:
    """Every text of a node by its place."""
    found = {key: node[key] for key in ("display_name", "description")}
    for part in ("inputs", "outputs"):
        for name, words in node[part].items():
            found |= {f"{part}.{name}.{key}": words[key] for key in ("name", "tooltip")}
    return found


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_covers_every_node_input_and_output(language: str) -> None:
    translated = nodes_in(language)
    assert translated.keys() == ENGLISH.keys()
    for node, english in ENGLISH.items():
        here = texts(translated[node])
        assert here.keys() == texts(english).keys(), node
        assert all(text.strip() for text in here.values()), node
        # A single word may be the same; several that are have not been translated.
        same = [place for place, text in texts(english).items() if " " in text and here[place] == text]
        assert not same, f"{node}: {same}"


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_has_names_for_socket_types_and_categories(language: str) -> None:
    english, translated = (read(ROOT / "locales" / each / "main.json") for each in ("en", language))
    assert translated.keys() == english.keys() == {"dataTypes", "nodeCategories"}
    for kind, names in translated.items():
        assert names.keys() == english[kind].keys()
        assert not [text for text in names.values() if not text.strip() or foreign(language, text)]
    assert not translated["dataTypes"].items() & english["dataTypes"].items() - {("SCORES", "SCORES")}


@pytest.mark.parametrize("language", ["en", *LANGUAGES])
def test_no_name_or_description_is_taken_for_a_message_with_parts(language: str) -> None:
    """The editor would fill in braces, choose between words at a stroke, and look up what follows an @."""
    shown = [text for node in nodes_in(language).values() for place, text in texts(node).items()
             if not place.endswith("tooltip")]
    shown += [text for names in read(ROOT / "locales" / language / "main.json").values() for text in names.values()]
    assert not [text for text in shown if re.search("[{}|@]", text)]


@pytest.mark.parametrize("language", SCRIPTS)
def test_a_language_with_letters_of_its_own_is_written_in_them(language: str) -> None:
    for node, words in nodes_in(language).items():
        left = {place: text for place, text in texts(words).items() if foreign(language, text)}
        assert not left, f"{node}: {left}"


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_keeps_what_must_not_be_translated(language: str) -> None:
    """Numbers, file endings and words in braces are the same in every language."""
    translated = nodes_in(language)
    fixed = re.compile(r"\{[a-z|]+\}|models/\w+|\.(?:json|toml|txt|safetensors|ckpt)\b", re.ASCII)
    for node, english in ENGLISH.items():
        here = texts(translated[node])
        for place, text in texts(english).items():
            assert sorted(fixed.findall(text)) == sorted(fixed.findall(here[place])), f"{node} {place}"
            assert not Counter(numbers(text)) - Counter(numbers(here[place])), f"{node} {place}"


@pytest.mark.parametrize("language", ["en", *LANGUAGES])
def test_no_text_is_longer_than_its_place(language: str) -> None:
    translated = nodes_in(language)
    for node, words in translated.items():
        for place, text in texts(words).items():
            part, kind = place.split(".")[0], place.split(".")[-1]
            assert columns(text) <= (ROOM.get(kind) or ROOM[f"{part}.{kind}"]), f"{node} {place}: {text}"


@pytest.mark.parametrize("language", sorted({"es", "fr", "ru"} & set(LANGUAGES)))
def test_a_text_calls_other_nodes_by_the_names_that_they_have(language: str) -> None:
    """Nodes of the pack and of ComfyUI stand in guillemets; the latter in the editor's own words."""
    translated = nodes_in(language)
    names = {words["display_name"].removesuffix(" (Atelier)") for words in translated.values()} | CORE_NAMES[language]
    for node, words in translated.items():
        for place, text in texts(words).items():
            assert set(re.findall("« ?(.+?) ?»", text)) <= names, f"{node} {place}"


def numbers(text: str) -> list[str]:
    """As "0.95", where the language writes a comma too."""
    return [number.replace(",", ".") for number in re.findall(r"\d+(?:[.,]\d+)?", text)]


def test_no_two_decisions_are_numbered_alike() -> None:
    numbers = [path.name.partition("-")[0] for path in sorted((ROOT / "docs" / "decisions").glob("*.md"))]
    assert numbers == [f"{number:04}" for number in range(1, len(numbers) + 1)]
