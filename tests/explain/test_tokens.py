"""Token tables, their picture and trigger checks, against transformers' tokenizer."""

from __future__ import annotations

import numpy as np
import pytest

from atelier.errors import AtelierError
from atelier.explain.token_picture import GAP, HEIGHT, color_of, draw_tokens
from atelier.explain.tokens import Token, TokenTable, joined, readable
from atelier.explain.trigger import Verdict, check_trigger, rare_words, warn_if_common
from atelier.models.tokenizer import load_tokenizer

TOKENIZER = load_tokenizer()
ENTRIES = {number: entry for entry, number in TOKENIZER.get_vocab().items()}


def ids(text: str) -> list[int]:
    return TOKENIZER(text, add_special_tokens=False, verbose=False).input_ids


def table(text: str, weight: float = 1.0) -> TokenTable:
    return TokenTable(tuple(Token(i, ENTRIES[i], weight, place // 75) for place, i in enumerate(ids(text))), ("l",))


@pytest.mark.parametrize("text", ["a cat wearing neon-glasses, 8k", "Straße, naïve CAFÉ", "猫と🦊", "it's 100% <sks>"])
def test_the_text_equals_what_transformers_decodes(text: str) -> None:
    tokens = table(text).tokens
    squeezed = TOKENIZER.decode(ids(text)).replace(" ", "")
    assert joined(tokens).replace(" ", "") == squeezed
    for token in tokens:
        whole = TOKENIZER.decode([token.id])
        if "�" not in whole:
            assert token.text.removesuffix("…") == whole.strip()
        assert token.text.endswith("…") != ENTRIES[token.id or 0].endswith("</w>")


def test_a_part_of_a_character_is_shown_as_bytes() -> None:
    entry = next(entry for entry in ENTRIES.values() if entry == "ðŁ")
    assert readable(entry) == "\\xf0\\x9f…"


def test_an_entry_of_another_vocabulary_is_shown_as_it_is() -> None:
    """CLIP's own write bytes as other characters; a text encoder of another extension may have any."""
    assert (readable("猫 é</w>"), readable("猫")) == ("猫 é", "猫…")
    assert joined([Token(7, "猫</w>", 1.0, 0), Token(2368, "cat</w>", 1.0, 0)]) == "猫 cat"


def test_the_table_counts_and_names_what_is_beyond() -> None:
    long = table(", ".join(["thing"] * 40))
    assert len(long.tokens) == 79 == len(ids(", ".join(["thing"] * 40)))
    assert long.beyond_text == ", thing , thing" and len(long.beyond) == 4
    lines = long.table().split("\n")
    assert lines[0] == "l: 79 tokens, 75 fit; beyond them: , thing , thing"
    assert lines[2].split() == ["1", "1", str(ids("thing")[0]), "1", "thing"]
    assert lines[-1].split() == ["79", "2", str(ids("thing")[0]), "1", "thing"]
    assert "beyond" not in table("a cat").table()


def test_colours_show_weights_and_red_the_tokens_beyond() -> None:
    assert color_of(1.0) == color_of(1.0 + 1e-9)
    red, _, blue = color_of(1.5)
    assert red > blue and color_of(9.0) == color_of(1.5)
    assert color_of(0.5)[2] > color_of(0.5)[0] and color_of(0.0) == color_of(0.5)
    plain, heavy = (np.asarray(draw_tokens(table("cat", weight))) for weight in (1.0, 1.5))
    assert (heavy.reshape(-1, 3) == color_of(1.5)).all(axis=1).sum() > 500
    assert not (plain.reshape(-1, 3) == color_of(1.5)).all(axis=1).any()

    def red_pixels(text: str) -> int:
        picture = np.asarray(draw_tokens(table(text))).reshape(-1, 3)
        return int((picture == (200, 30, 30)).all(axis=1).sum())

    assert red_pixels(" ".join(["cat"] * 75)) == 0 < red_pixels(" ".join(["cat"] * 76))
    assert [draw_tokens(table(text)).height for text in ("", "cat")] == [2 * GAP + HEIGHT, 2 * GAP + 2 * HEIGHT]
    assert draw_tokens(table("x" * 300), width=200).width == 200


@pytest.mark.parametrize(("word", "verdict"), [("ohwx", Verdict.RARE), ("sks", Verdict.RARE), ("dog", Verdict.COMMON),
                                               ("a red Dog", Verdict.COMMON), ("rlph", Verdict.SEVERAL),
                                               ("impressionism", Verdict.COMMON),
                                               ("ohwx person", Verdict.SEVERAL)])
def test_verdicts(word: str, verdict: Verdict) -> None:
    check = check_trigger(word, ids(word), ENTRIES)
    assert check.verdict is verdict
    assert [rank - 1 for rank in check.ranks] == ids(word)
    assert check.vocabulary == len(ENTRIES) == 49408


def test_an_end_of_a_word_alone_is_no_word() -> None:
    piece = next(number for number in range(45000, 49000) if not ENTRIES[number].endswith("</w>"))
    assert check_trigger("x", [piece], ENTRIES).verdict is Verdict.SEVERAL


def test_norms_are_those_of_the_tokens_and_the_mean_of_all() -> None:
    norms = [float(number) for number in range(len(ENTRIES))]
    check = check_trigger("rlph", ids("rlph"), ENTRIES, norms)
    assert list(check.norms) == [float(i) for i in ids("rlph")]
    assert check.mean_norm == (len(ENTRIES) - 1) / 2
    assert "embedding norm" in check.text() and "embedding norm" not in check_trigger("a", ids("a"), ENTRIES).text()


def test_suggestions_are_rare_single_tokens() -> None:
    words = rare_words(ENTRIES, 20)
    assert len(set(words)) == 20
    assert {ids(word)[0] % 2 for word in words} == {0, 1}, "some are passed over"
    for word in words:
        number, = ids(word)
        assert number > 0.9 * len(ENTRIES)
        assert check_trigger(word, [number], ENTRIES).verdict is Verdict.RARE


def test_the_trainer_is_warned_of_common_words_only() -> None:
    assert "'dog' is a common word (rank 1930 of 49408)" in warn_if_common("dog", ids, ENTRIES)
    assert not any(warn_if_common(word, ids, ENTRIES) for word in ("ohwx", "", "  ", "rlph"))


def test_nothing_to_check() -> None:
    with pytest.raises(AtelierError, match="holds no word"):
        check_trigger(" ", ids(" "), ENTRIES)
