"""Example sets, token budgets and the offline writers: no server, no network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atelier.errors import AtelierError
from atelier.models.tokenizer import load_tokenizer
from atelier.prompts import budget, offline
from atelier.prompts.art_request import CATEGORIES, ArtRequest, category_in
from atelier.prompts.distinct import repeats
from atelier.prompts.endpoints import ENDPOINTS, LanguageModel
from atelier.prompts.examples import ExampleLibrary
from atelier.prompts.fields import CLIP_BUDGET, PromptFields, PromptStyle
from atelier.prompts.own_examples import add_example, example_of
from atelier.prompts.random_art import offline_prompts
from atelier.prompts.request import PromptRequest


def test_the_model_handle_checks_itself() -> None:
    assert LanguageModel(base_url=" HTTPS://Host.Example:443/v1/ ", model=" m ").base_url == "https://host.example/v1"
    for wrong in ({"model": " "}, {"timeout": 0}, {"max_tokens": 1}, {"temperature": 3}, {"price_in": -1}):
        with pytest.raises(AtelierError):
            LanguageModel(**{"base_url": ENDPOINTS["OpenAI"].base_url, "model": "m", **wrong})


# Examples -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ExampleLibrary().names())
def test_shipped_sets_fit_into_a_clip_text_encoder(name: str) -> None:
    shipped = ExampleLibrary().get(name)
    assert shipped.description and shipped.negative and len(shipped.examples) >= 3
    for example in shipped.examples:
        for text in (example.positive, example.negative):
            tokens = len(load_tokenizer()(text)["input_ids"]) - 2
            assert tokens <= CLIP_BUDGET
            assert 0.85 <= budget.estimate(text) / tokens <= 1.3, f"the estimate is far off for {text!r}"


def test_two_sets_ship() -> None:
    assert ExampleLibrary().names() == ["photoreal-sd15", "sdxl"]


def write_set(folder: Path, name: str, positive: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.toml").write_text(
        f'form = "tags"\nnegative = "usual"\n[[example]]\nidea = "i"\npositive = "{positive}"\ntitle = "T"\n',
        encoding="utf-8")


def test_a_set_with_a_byte_order_mark_is_read_and_added_to(tmp_path: Path) -> None:
    """Editors on Windows write one."""
    write_set(tmp_path, "mine", "a cat")
    file = tmp_path / "mine.toml"
    file.write_text("\ufeff" + file.read_text(encoding="utf-8"), encoding="utf-8")
    library = ExampleLibrary((tmp_path,))
    assert library.get("mine").examples[0].positive == "a cat"
    assert add_example(library, "mine", example_of("a dog"), PromptStyle.TAGS) == library.get("mine")
    assert [example.positive for example in library.get("mine").examples] == ["a cat", "a dog"]


def test_own_sets_are_found_first_and_read_again_when_they_change(tmp_path: Path) -> None:
    library = ExampleLibrary((tmp_path / "mine", *ExampleLibrary().folders))
    before = library.fingerprint("sdxl")
    write_set(tmp_path / "mine", "sdxl", "mine")
    assert library.get("sdxl").examples[0].positive == "mine" and library.get("sdxl").examples[0].negative == "usual"
    assert library.fingerprint("sdxl") != before
    write_set(tmp_path / "mine", "sdxl", "changed")
    assert library.get("sdxl").examples[0].positive == "changed"


@pytest.mark.parametrize("name", ["", "missing", "../sdxl", "/etc/passwd", "a/b"])
def test_unknown_sets_and_paths_are_refused(name: str) -> None:
    with pytest.raises(AtelierError, match="Choose one of these: photoreal-sd15, sdxl"):
        ExampleLibrary().get(name)


def test_a_name_leads_to_no_file_outside_the_folders(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    write_set(tmp_path, "outside", "not for you")
    with pytest.raises(AtelierError, match="no example set"):
        ExampleLibrary((tmp_path / "mine",)).get("../outside")


@pytest.mark.parametrize(("text", "message"), [
    ("form =", "not valid TOML"), ('form = "poem"', "form is 'poem'"), ('form = "tags"', "has no examples"),
    ('form = "tags"\n[[example]]\nidea = "i"', "positive is missing"), ("form = 3", "form is missing or not a text"),
])
def test_a_wrong_set_names_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "wrong.toml").write_text(text, encoding="utf-8")
    with pytest.raises(AtelierError, match=message) as caught:
        ExampleLibrary((tmp_path,)).get("wrong")
    assert "wrong.toml" in str(caught.value)


# Budget -------------------------------------------------------------------------------------------------------------

def words_of(text: str) -> int:
    return len(text.split())


@given(st.lists(st.lists(st.text("abc", min_size=1, max_size=5), min_size=1, max_size=6), min_size=1, max_size=8),
       st.integers(1, 30))
def test_a_cut_prompt_is_a_beginning_within_the_budget(tags: list[list[str]], limit: int) -> None:
    text = ", ".join(" ".join(tag) for tag in tags)
    cut = budget.cut_to(text, limit, words_of)
    assert text.startswith(cut) and cut and words_of(cut) <= limit
    assert (cut == text) == (words_of(text) <= limit)


def test_cuts_stand_between_tags_or_sentences() -> None:
    assert budget.cut_to("a red cat, a blue dog, rain", 6, words_of) == "a red cat, a blue dog"
    assert budget.cut_to("A cat sits. It rains hard. Night.", 6, words_of) == "A cat sits. It rains hard."
    assert budget.cut_to("a very long first tag, more", 3, words_of) == "a very long"
    assert budget.cut_to("a b c", 0, words_of) == "a b c"
    assert budget.cut_to("1,000 birds in flight, rain", 4, words_of) == "1,000 birds in flight"


def clip_tokens(text: str) -> int:
    return len(load_tokenizer()(text)["input_ids"]) - 2


@pytest.mark.parametrize("counter", [clip_tokens, None])
@pytest.mark.parametrize(("text", "end"), [
    ("masterpiece,solo,smile,long_hair,looking_at_viewer," * 15, ("masterpiece", "solo", "smile", "hair", "viewer")),
    ("masterpiece;solo;smile;" * 40, ("masterpiece", "solo", "smile")),
    ("一只戴着霓虹眼镜的猫，雨中的街道，电影般的光线、杰作、" * 5, ("猫", "街道", "光线", "杰作")),
    ("猫が歩く。雨が降る。" * 20, ("。",)),
    ("a_very_long_tag_that_never_ends" * 20, tuple("a_verylongthtnds")),
    ("霓虹眼镜" * 60, tuple("霓虹眼镜")),
], ids=["commas", "semicolons", "Chinese", "Japanese", "one tag", "no stops"])
def test_the_budget_is_kept_without_spaces(text: str, end: tuple[str, ...], counter: budget.TokenCounter | None
                                           ) -> None:
    cut = budget.cut_to(text, 75, counter)
    assert text.startswith(cut) and cut.endswith(end)
    assert 55 <= budget.count(cut, counter).number <= 75


@pytest.mark.parametrize("text", [
    "一只戴着霓虹眼镜的猫，雨中的街道，电影般的光线，杰作，最高质量",
    "ネオンの眼鏡をかけた猫、雨の夜の路地、映画のような光。",
    "비 오는 밤 네온 안경을 쓴 고양이",
    "кошка в неоновых очках под дождём, ночная улица",
    "γάτα με γυαλιά νέον στη βροχή",
], ids=["Chinese", "Japanese", "Korean", "Russian", "Greek"])
def test_other_scripts_are_estimated_as_the_tokens_they_fall_apart_into(text: str) -> None:
    assert 0.65 <= budget.estimate(text) / clip_tokens(text) <= 1.35


def test_what_is_too_long_keeps_a_letter() -> None:
    assert budget.cut_to(" abc", 1, lambda text: 2 * len(text.strip())) == "a"
    assert budget.cut_to(",,, a b", 1, words_of) == "a"


# Offline ------------------------------------------------------------------------------------------------------------

def test_the_offline_writer_is_deterministic_and_follows_the_seed() -> None:
    request = PromptRequest(idea="a cat wearing neon-glasses", seed=1)
    assert offline.write(request) == offline.write(request)
    assert len({offline.write(PromptRequest(idea="a cat", seed=s)).positive for s in range(20)}) > 15


def test_the_offline_writer_is_the_same_in_every_process() -> None:
    code = ("from atelier.prompts.random_art import *; from atelier.prompts.offline import write;"
            "from atelier.prompts.request import PromptRequest;"
            "print([p.text for p in offline_prompts(ArtRequest(20, seed=5)).prompts]);"
            "print(write(PromptRequest(idea='cat')).positive)")
    outputs = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                              cwd=Path(__file__).parents[2], env={**os.environ, "PYTHONHASHSEED": seed}).stdout
               for seed in ("1", "2")}
    assert len(outputs) == 1 and len(outputs.pop()) > 100


def test_the_offline_writer_uses_idea_fields_style_and_the_models_negative() -> None:
    examples = ExampleLibrary().get("photoreal-sd15")
    request = PromptRequest(idea="an old fisherman", style="film noir",
                            fields=PromptFields(medium="photo", lighting="candle"),
                            examples=examples)
    written = offline.write(request)
    assert written.positive.startswith("photo, an old fisherman, candle, film noir, ")
    assert written.negative == examples.negative and written.title == "An Old Fisherman"
    assert written.source == "the offline writer" and written.cost.tokens_in == 0
    sentence = offline.write(PromptRequest(idea="an old fisherman", prompt_style=PromptStyle.SENTENCES)).positive
    assert sentence.startswith("An old") and sentence.endswith(".")


def test_titles() -> None:
    assert offline.title_of("a cat wearing neon-glasses, at night") == "A Cat wearing Neon-glasses at Night"
    assert offline.title_of("the fisherman's son and the sea, long ago") == "The Fisherman's Son and the Sea"
    assert offline.title_of("a cat on the roof of the house") == "A Cat on the Roof"
    assert offline.title_of("of the") == "Of"
    assert offline.title_of("!!!") == "Untitled"


@pytest.mark.parametrize("seed", range(5))
def test_a_grids_worth_of_offline_prompts_has_no_repeats(seed: int) -> None:
    found = offline_prompts(ArtRequest(192, seed=seed)).prompts
    assert len(found) == 192 and repeats([(p.subject, p.text) for p in found]) == []
    assert max(sum(p.category == c for p in found) for c in CATEGORIES) == 28
    assert all(p.subject in p.text and budget.estimate(p.text) <= 75 for p in found)


def test_seeds_and_categories_of_offline_prompts() -> None:
    draws = {offline_prompts(ArtRequest(6, seed=s)).prompts for s in range(10)}
    assert len(draws) == 10
    assert {p.category for p in offline_prompts(ArtRequest(9, ("space", "animal"))).prompts} == {"space", "animal"}
    with pytest.raises(AtelierError, match="knows 40 different prompts of the category space, not 41"):
        offline_prompts(ArtRequest(41, ("space",)))


@pytest.mark.parametrize(("text", "category"), [
    ("animal", "animal"), (" Animals", "animal"), ("Abstract art", "abstract"), ("cityscapes", "cityscape"),
    ("dogs", None), ("", None), ("animals in a landscape", None),
])
def test_a_category_is_known_in_other_words(text: str, category: str | None) -> None:
    assert category_in(text, CATEGORIES) == category


@pytest.mark.parametrize("wrong", [{"count": 0}, {"count": 2000}, {"count": 1, "categories": ()},
                                   {"count": 1, "categories": ("cat",)}])
def test_wrong_art_requests(wrong: dict) -> None:
    with pytest.raises(AtelierError):
        ArtRequest(**wrong)


@pytest.mark.parametrize("wrong", [{"idea": " "}, {"idea": "x" * 5000}, {"idea": "cat", "budget": 3}])
def test_wrong_prompt_requests(wrong: dict) -> None:
    with pytest.raises(AtelierError):
        PromptRequest(**wrong)


def test_near_duplicates_are_repeats() -> None:
    pairs = [("snow leopard", "a snow leopard on a rock, oil painting"),
             ("leopards", "leopards sleeping in a tree"),
             ("ice cat", "the snow leopard on rocks, an oil painting, detailed"),
             ("fox", "a red fox in tall grass, watercolour"),
             ("the foxes", "two foxes at night, ink"),
             ("berry", "berries in a bowl, photograph")]
    assert repeats(pairs) == [1, 2, 4]


def test_importing_the_prompts_stage_loads_nothing_heavy() -> None:
    code = ("import sys, atelier.prompts.write, atelier.prompts.random_art, atelier.prompts.credentials;"
            "print([m for m in ('openai', 'httpx', 'httpx2', 'torch', 'transformers', 'numpy') if m in sys.modules])")
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                            cwd=Path(__file__).parents[2])
    assert output.stdout.strip() == "[]"
    assert re.match(r"^$", output.stderr)
