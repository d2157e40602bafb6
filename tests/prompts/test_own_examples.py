"""Example sets that grow from prompts a person liked."""

from __future__ import annotations

import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from atelier.errors import AtelierError
from atelier.prompts.examples import SHIPPED, ExampleLibrary
from atelier.prompts.fields import PromptStyle
from atelier.prompts.own_examples import add_example, example_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def test_an_installed_library_has_the_shipped_sets() -> None:
    """They lie beside the library, so that the package must name their folder and files."""
    setup = tomllib.loads((SHIPPED.parent / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    assert SHIPPED.name in setup["packages"]["find"]["include"]
    globs = setup["package-data"][SHIPPED.name]
    assert set(SHIPPED.iterdir()) == {file for glob in globs for file in SHIPPED.glob(glob)}


@pytest.fixture
def library(tmp_path: Path) -> ExampleLibrary:
    return ExampleLibrary((tmp_path, SHIPPED))


def test_a_set_begins_and_grows(library: ExampleLibrary, tmp_path: Path) -> None:
    add_example(library, "mine", example_of("a fox, snow", "blurry"), PromptStyle.TAGS)
    made = add_example(library, "mine", example_of("a hare\nat  night", "", "a hare", "Hare"), PromptStyle.TAGS)
    assert [vars(example) for example in made.examples] == [
        {"idea": "a fox", "positive": "a fox, snow", "negative": "blurry", "title": "A fox"},
        {"idea": "a hare", "positive": "a hare at night", "negative": "blurry", "title": "Hare"}]
    assert library.get("mine") == made and (made.style, made.negative) == (PromptStyle.TAGS, "blurry")
    assert [file.name for file in tmp_path.iterdir()] == ["mine.toml"]


def test_what_is_there_is_not_added_again(library: ExampleLibrary, tmp_path: Path) -> None:
    for idea in ("one", "another"):
        made = add_example(library, "mine", example_of("a fox", idea=idea), PromptStyle.TAGS)
    assert len(made.examples) == 1


def test_names_are_one_in_upper_and_lower_case(library: ExampleLibrary, tmp_path: Path) -> None:
    add_example(library, "Größer", example_of("a fox"), PromptStyle.TAGS)
    again = add_example(library, unicodedata.normalize("NFD", "größer"), example_of("a hare"), PromptStyle.TAGS)
    assert (again.name, len(again.examples)) == ("Größer", 2)
    assert add_example(library, "SDXL", example_of("A fox."), PromptStyle.SENTENCES).name == "sdxl"
    assert len(list(tmp_path.iterdir())) == 2


def test_a_persons_own_file_keeps_its_comments(library: ExampleLibrary, tmp_path: Path) -> None:
    written = 'form = "sentences" # mine\n\n[[example]]\nidea = "x"\npositive = "X."\ntitle = "X"\n# the end'
    (tmp_path / "mine.toml").write_text(written, encoding="utf-8")
    add_example(library, "mine", example_of("Y."), PromptStyle.SENTENCES)
    assert (tmp_path / "mine.toml").read_text("utf-8").startswith(f"{written}\n\n[[example]]\n")


def test_a_set_of_the_pack_is_copied_first(library: ExampleLibrary, tmp_path: Path) -> None:
    before = (SHIPPED / "sdxl.toml").read_bytes()
    old = library.get("sdxl")
    made = add_example(library, "sdxl", example_of("A fox.", "fog"), PromptStyle.SENTENCES)
    assert made.examples[:-1] == old.examples and made.advice == old.advice and made.negative == old.negative
    assert (SHIPPED / "sdxl.toml").read_bytes() == before and (tmp_path / "sdxl.toml").is_file()


@pytest.mark.parametrize(("positive", "idea"), [
    ("a fox, snow", "a fox"), ("A fox in the snow. Cold.", "A fox in the snow"), (", fox", ", fox"),
    ("(masterpiece:1.2), [best] quality", "masterpiece"), ("a lens f/1.8 wide open.", "a lens f/1.8 wide open"),
    ("one two three four five six seven eight nine ten", "one two three four five six seven eight"),
])
def test_an_idea_is_taken_from_the_prompt(positive: str, idea: str) -> None:
    assert example_of(positive).idea == idea


@example("a\x7fb \ud800 \" \\ c")
@settings(deadline=None)
@given(st.text(st.characters(codec=None), min_size=1).filter(str.strip))
def test_any_text_can_be_kept(text: str) -> None:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        library = ExampleLibrary((Path(folder),))
        add_example(library, "mine", example_of(text, text, text, text), PromptStyle.TAGS)
        value = tomllib.loads((Path(folder) / "mine.toml").read_text("utf-8"))["example"][0]["positive"]
    kept = "".join("\N{REPLACEMENT CHARACTER}" if "\ud800" <= c <= "\udfff" else c for c in text)
    assert value == " ".join(kept.split())


def test_what_cannot_be_added_leaves_the_file_alone(library: ExampleLibrary, tmp_path: Path) -> None:
    inline = 'form = "tags"\nexample = [{idea = "a", positive = "b", title = "c"}]\n'
    for name, text, says in (("inline", inline, "lists its examples in another way"),
                             ("broken", "form = tags", "is not valid TOML")):
        (tmp_path / f"{name}.toml").write_text(text, encoding="utf-8")
        with pytest.raises(AtelierError, match=rf"{name}\.toml {says}"):
            add_example(library, name, example_of("x"), PromptStyle.TAGS)
        assert (tmp_path / f"{name}.toml").read_text("utf-8") == text
    with pytest.raises(AtelierError, match="'sdxl' holds sentences, this prompt is to be tags"):
        add_example(library, "sdxl", example_of("x"), PromptStyle.TAGS)
    assert not (tmp_path / "sdxl.toml").exists()


@pytest.mark.parametrize("name", ["", "../up", "a/b", "con", " a", "a?"])
def test_a_name_is_a_file_name(library: ExampleLibrary, tmp_path: Path, name: str) -> None:
    with pytest.raises(AtelierError, match="cannot be"):
        add_example(library, name, example_of("x"), PromptStyle.TAGS)
    assert not any(tmp_path.iterdir())


def test_an_empty_prompt_is_no_example(library: ExampleLibrary) -> None:
    with pytest.raises(AtelierError, match="positive is empty"):
        example_of(" \n", "blurry")
    with pytest.raises(AtelierError, match="form is fields"):
        add_example(library, "mine", example_of("x"), PromptStyle.FIELDS)
