"""What the page says (web/js) stands in one table for each language, whole, and nowhere else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from kit.languages import LANGUAGES, SCRIPTS, columns, foreign, read

ROOT = Path(__file__).resolve().parent.parent.parent
JS = ROOT / "web" / "js"
TABLES = {path.stem: read(path) for path in (JS / "messages").glob("*.json")}
ENGLISH = TABLES["en"]
SOURCES = {path.relative_to(JS).as_posix(): path.read_text(encoding="utf-8") for path in JS.rglob("*.js")}
# Columns that a text has room for, by the beginning of its key; the longest beginning counts. The panel is 380 pixels
# wide: three buttons in one row, five numbers with their names in another.
ROOM = {
    "": 100, "fold.": 36, "folders.choose": 30, "folders.entry": 40, "folders.upload": 60, "folders.upload_hint": 90,
    "captions.use": 8, "captions.use_file": 30, "curve.": 14, "curve.scores": 80, "curve.none": 80,
    "curve.described": 90, "ending.": 44, "phase.": 36, "panel.left": 13, "panel.loss": 13, "panel.memory": 13,
    "panel.rate": 13, "panel.speed": 13, "panel.stop": 18, "panel.resume": 18, "panel.sample": 18,
    "panel.sample_of": 60, "panel.samples": 60, "panel.stopping": 36,
}
# A comment, or a literal with what stands before it.
TOKEN = re.compile(r"""/\*.*?\*/|(?<![:\\"'`])//[^\n]*|"(?:[^"\\\n]|\\.)*"|`(?:[^`\\]|\\.)*`""", re.DOTALL)
# Where a script hands a text to the page.
SINK = re.compile(r"""(?x) (?: (?:textContent|innerText|\.label|\.title|\.alt) \s* = \s* [^=;(]*
    | (?:"aria-label"|\btitle|\balt|\bplaceholder): \s* [^,(]*
    | \}, \s* | \bappend\([^)]*, \s* | \bset\([^,]+, \s* ) $""")
# Two words, a word between two values, or one that begins as a sentence does.
SENTENCE = re.compile(r"[^\W\d_]{2,}[,.:]? [^\W\d_]{2,}|\s[^\W\d_]{2,}\s|^[A-Z][a-z]+$")
# Class names, fonts and media types; states, headers, properties and settings of others.
CODE = re.compile(r"atelier-[a-z- ]+|12px system-ui, sans-serif|image/\*.*|stopped by user|Atelier|POST|Content-Type")


def forms(entry: str | dict[str, str]) -> list[str]:
    return [entry] if isinstance(entry, str) else list(entry.values())


def test_every_language_of_the_nodes_has_a_table_and_the_page_knows_it() -> None:
    known = re.search(r"const LANGUAGES = \[(.*)\];", SOURCES["messages.js"])
    assert known
    assert re.findall(r'"([\w-]+)"', known[1]) == sorted(TABLES) == sorted([*LANGUAGES, "en"])


@pytest.mark.parametrize("language", sorted(TABLES))
def test_no_text_is_missing_left_in_english_or_longer_than_its_place(language: str) -> None:
    assert TABLES[language].keys() == ENGLISH.keys()
    for key, entry in TABLES[language].items():
        room = ROOM[max((start for start in ROOM if key.startswith(start)), key=len)]
        assert isinstance(entry, str) == isinstance(ENGLISH[key], str), key
        for text in forms(entry):
            assert text.strip() and columns(text) <= room, f"{key}: {columns(text)} columns: {text}"
            assert names(text) == names(forms(ENGLISH[key])[-1]), f"{key}: {text}"
            assert not foreign(language, text), f"{key}: {text}"
            if language != "en" and language not in SCRIPTS and " " in re.sub(r"\{\w+\}", "", text).strip():
                assert text not in forms(ENGLISH[key]), f"{key}: {text}"


def names(text: str) -> set[str]:
    """The words to fill in."""
    return set(re.findall(r"\{(\w+)\}", text))


def test_every_text_is_used_and_every_text_that_is_used_exists() -> None:
    used: set[str] = set()
    for source in SOURCES.values():
        used |= set(re.findall(r'\bmessage\("([\w.]+)"', source)) | set(re.findall(r'"(length\.\w+)"', source))
        for start, end in re.findall(r"\bmessage\(`([\w.]+)\$\{\w+\}([\w.]*)`", source):
            used |= {key for key in ENGLISH if key.startswith(start) and key.endswith(end)}
    assert {key for key in ENGLISH if not key.startswith(("phase.", "ending."))} == used


def test_every_state_of_a_training_has_a_name() -> None:
    sources = [*(ROOT / "atelier" / "train").rglob("*.py"), ROOT / "atelier" / "dataset" / "encode.py"]
    phases = {phase for path in sources
              for phase in re.findall(r'progress\.phase\("(\w+)"', path.read_text(encoding="utf-8"))}
    assert phases >= {"loading", "encoding", "training", "sampling", "saving"}
    assert {f"phase.{phase}" for phase in phases} <= ENGLISH.keys()
    described = re.search(r'status "running", (.*)$', SOURCES["training/session.js"], re.MULTILINE)
    assert described
    assert {f"ending.{state}" for state in re.findall(r'"([\w ]+)"', described[1])} \
        == {key for key in ENGLISH if key.startswith("ending.")}


@pytest.mark.parametrize("name", SOURCES)
def test_no_script_has_a_text_of_its_own(name: str) -> None:
    assert not texts_in(SOURCES[name])


def texts_in(source: str) -> list[str]:
    """Literals that are texts for a person."""
    found: list[str] = []
    for token in TOKEN.finditer(source):
        literal = re.sub(r"\$\{[^}]*\}", " ", token[0][1:-1])
        if token[0][0] == "/" or CODE.fullmatch(literal) or not re.search(r"[^\W\d_]{2}", literal):
            continue
        before = source[source.rfind("\n", 0, token.start()) + 1:token.start()]
        called = re.search(r"(?:message|stateName)\($", before)
        if not called and (SENTENCE.search(literal) or SINK.search(before)):
            found.append(token[0])
    return found


@pytest.mark.parametrize("line", [
    'this.stop = element("button", { type: "button" }, "Stop and keep");', 'alt: `Sample picture after step ${step}`',
    'label.append(used, "use");', 'return "Loss curve: nothing yet";', 'set(this.note, "Failed");',
    'button.label = "More";', '{ "aria-label": "Training" }', '`${done} of ${total}`',
])
def test_a_text_in_a_script_is_found(line: str) -> None:
    assert texts_in(line)


def test_a_table_has_nothing_but_texts() -> None:
    for language, table in TABLES.items():
        assert all(isinstance(text, str) for entry in table.values() for text in forms(entry)), language
        assert list(table) == sorted(table), language
