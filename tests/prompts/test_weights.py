"""Weighted prompts: the syntax against compel's parser, the arithmetic against compel's embeddings and by hand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

import pytest
import torch
from compel import Compel, PromptParser, ReturnedEmbeddingsType
from compel.embeddings_provider import SplitLongTextMode
from hypothesis import given
from hypothesis import strategies as st
from kit.stack_encoder import StackEncoder
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from atelier.errors import AtelierError
from atelier.models.families import FAMILIES
from atelier.models.text import TextStack
from atelier.models.tokenizer import load_tokenizer
from atelier.prompts.weights.embed import Encoded, TokenizedClause, weighted
from atelier.prompts.weights.syntax import Blend, Clause, Fragment, WeightedPrompt, parse

SAME_AS_COMPEL = r'''
a cat++ sitting
a cat+ and a dog-- in the (deep forest)1.3, sunset
(a red cat)++ on "a blue mat"--
((nested words)+ outside)1.5 tail
"quoted (inner)++ text"1.2 x
neon-glasses++, 8k
a tall-dark-stranger- walks
(a (b (c)+)++)0.5
plain, text, with. punctuation; here: now
cat.attend(1.3) dog.attend(--) (two words).attend(0.2)
an 8k photo, f/1.8, 35mm
-5 degrees, +1 up
a - b
\(literal\) brackets
say \"hello\" to (me)++
cat++,dog--
mountain man-
(x)0.0 y
(unmatched
smile :) end
("a cat", "a dog").blend(1, 0.8)
("a cat+", "a (red dog)0.3").blend(0.5, 0.7)
("a cat", "a dog").blend(1, -0.5, no_normalize)
("a cat++ on mat", "a dog").and()
("a cat", "b", "c").and(1, 0.5, 0.25)
(cat, dog).blend(0.7, 0.3)
'''.strip().splitlines()


def shape(prompt: WeightedPrompt) -> object:
    def clause(part: Clause) -> object:
        return [(re.sub(r"\s", "", f.text), round(f.weight, 9)) for f in part.fragments]

    parts = [([clause(c) for c in part.clauses], list(part.weights), part.normalize) if isinstance(part, Blend)
             else clause(part) for part in prompt.parts]
    return parts, list(prompt.weights)


def shape_by_compel(text: str) -> object:
    def clause(part: object) -> object:
        return [(re.sub(r"\s", "", f.text), round(f.weight, 9)) for f in part.children]

    parsed = PromptParser().parse_conjunction(text)
    parts = [([clause(c) for c in part.prompts], list(part.weights), part.normalize_weights) if hasattr(part, "prompts")
             else clause(part) for part in parsed.prompts]
    return parts, [float(weight) for weight in parsed.weights]


# Syntax -------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("text", SAME_AS_COMPEL)
def test_reads_what_compel_reads(text: str) -> None:
    assert shape(parse(text)) == shape_by_compel(text)


def fragments(text: str) -> list[tuple[str, float]]:
    part = parse(text).parts[0]
    assert isinstance(part, Clause)
    return [(f.text, round(f.weight, 6)) for f in part.fragments]


@pytest.mark.parametrize(("text", "expected"), [
    ("", [("", 1.0)]),
    ("(a cat:1.3) sat", [("a cat", 1.3), ("sat", 1.0)]),
    ("((a:1.2) b:0.5)++", [("a", 0.726), ("b", 0.605)]),
    ("ratio 16:9 (at 16:9) x", [("ratio 16:9", 1.0), ("at 16", 9.0), ("x", 1.0)]),
    (r"C\+\+ code", [("C++ code", 1.0)]),
    ("f1.8++", [("f1.8", 1.21)]),
    ("a--b c+d --ar + ++", [("a--b c+d --ar + ++", 1.0)]),
    ("(a b)2nd", [("a b 2nd", 1.0)]),
    ("(cat)1.2dog", [("cat 1.2dog", 1.0)]),
    ("(cat)1.2.3 (dog)1.2, x", [("cat 1.2.3", 1.0), ("dog", 1.2), (", x", 1.0)]),
    ("(cat)1.2. (dog)2.", [("cat", 1.2), (".", 1.0), ("dog", 2.0), (".", 1.0)]),
    ("wow!++, yes--.", [("wow!", 1.21), (",", 1.0), ("yes", 0.81), (".", 1.0)]),
    ('5" tall, 6" wide', [('5" tall, 6" wide', 1.0)]),
    ("embedding:neg-v1.1++ cat", [("embedding:neg-v1.1", 1.21), ("cat", 1.0)]),
    ("()++ a", [("a", 1.0)]),
    ("Ünïcödé++ 猫-", [("Ünïcödé", 1.21), ("猫", 0.9)]),
])
def test_reads_beyond_compel(text: str, expected: list[tuple[str, float]]) -> None:
    assert fragments(text) == expected


def test_a_quote_behind_a_backslash_keeps_no_comma_from_parting_prompts() -> None:
    parts = parse(r'(5\" tall, "b, c").and(1, 2)').parts
    assert [f.text for part in parts if isinstance(part, Clause) for f in part.fragments] == ['5" tall', "b, c"]


@pytest.mark.parametrize(("text", "texts"), [
    ('("", "b").and(1, 2)', ["", "b"]), (r'("\"a\" b", "c").and(1, 2)', ['"a" b', "c"]),
    (r'("a\\", "b").and()', ["a\\", "b"])])
def test_quoted_prompts_may_be_empty_and_begin_with_a_quote(text: str, texts: list[str]) -> None:
    assert [f.text for part in parse(text).parts if isinstance(part, Clause) for f in part.fragments] == texts


@pytest.mark.parametrize(("text", "message"), [
    ('("a", "b").blend(1)', "2 prompts and 1 weights"),
    ('("a", "b").and(1, x)', "no number"),
    ('("a", "b").blend(nan, 1)', "no number"),
    ('("a", "b").and(1, no_normalize)', "no number"),
    ('("a", "b").blend(1, -1)', "add up to zero"),
    ('("a", "b").blend(1, 1) and more', "not around the whole"),
    ('before ("a", "b").and()', "not around the whole"),
    ('a cat.swap(dog)', "swap"),
    ("(x)101", "weight 101"),
    ("x" + "+" * 3000, "weight"),
    ("(" * 200 + "x" + ")" * 200, "deep"),
])
def test_mistakes_are_reported(text: str, message: str) -> None:
    with pytest.raises(AtelierError, match=message):
        parse(text)


@given(st.text(alphabet='ab ()",.+-:1\\', max_size=40))
def test_any_text_is_parsed_or_refused_with_an_error(text: str) -> None:
    try:
        prompt = parse(text)
    except AtelierError:
        return
    for part in prompt.parts:
        for clause in part.clauses if isinstance(part, Blend) else [part]:
            assert clause.fragments
            assert all(a.weight != b.weight for a, b in zip(clause.fragments, clause.fragments[1:], strict=False))
            assert re.sub(r"[^ab]", "", clause.text) in re.sub(r"[^ab]", "", text)


# Arithmetic, by hand ------------------------------------------------------------------------------------------------

class Toy:
    """Two numbers a position: the token, and the sum of all tokens that attention sees. Four positions, no marks."""

    def tokenize(self, fragments: Sequence[str]) -> TokenizedClause:
        words = [(float(word), index) for index, text in enumerate(fragments) for word in text.split()]
        padding = [(0.0, -1)] * (4 - len(words))
        values, owner = zip(*words, *padding, strict=True)
        return TokenizedClause(torch.tensor(values), torch.tensor(owner))

    def encode(self, tokens: TokenizedClause, without: Sequence[int | None]) -> Encoded:
        seen = [tokens.content * (tokens.owner != (-2 if index is None else index)) for index in without]
        embeds = torch.stack([torch.stack([tokens.content, s.sum().expand(4)], dim=-1) for s in seen])
        return Encoded(embeds + 1, torch.stack([s.sum()[None] for s in seen]))


def test_heavier_words_move_away_from_the_empty_prompt() -> None:
    # The empty prompt is (1, 1) everywhere; the words give (word + 1, 6 + 1).
    result = weighted("(2)1.5 4", Toy())
    expected = [[1 + 2 * 1.5, 1 + 6 * 1.5], [5, 7], [1, 7], [1, 7]]
    assert torch.allclose(result.embeds[0], torch.tensor(expected))
    assert result.pooled is not None and result.pooled.tolist() == [[6.0]]


def test_half_a_word_is_half_way_to_the_prompt_without_it() -> None:
    # tan(π/4) = 1: the mean of "2 4" and of "4" seen alone, both with the 2's own position at half weight.
    result = weighted("(2)0.5 4", Toy())
    expected = [[1 + 2 * 0.5, 1 + (6 + 4) / 2 * 0.5], [5, 1 + (6 + 4) / 2], [1, 6], [1, 6]]
    assert torch.allclose(result.embeds[0], torch.tensor(expected))


def test_hidden_words_stay_in_the_pooled_vector() -> None:
    # The variant without the word 2 has the sum 1 + 4; the prompt's own is 1 + 2 + 4.
    for text, pooled in (("1 (2)0.5 4", [[7.0]]), ("(1)0 2 (4)0.3", [[7.0]]),
                         ('("1 (2)0.5", "4").blend(1, 1)', [[3.5]])):
        found = weighted(text, Toy()).pooled
        assert found is not None and found.tolist() == pooled


def test_blends_and_conjunctions() -> None:
    mean = weighted('("2", "4").blend(3, 1)', Toy())
    assert mean.embeds[0, 0].tolist() == [1 + 2.5, 1 + 2.5] and mean.pooled.tolist() == [[2.5]]
    total = weighted('("2", "4").blend(3, -1, no_normalize)', Toy())
    assert total.embeds[0, 0].tolist() == [3 * 3 - 5, 3 * 3 - 5]
    both = weighted('("2", "4").and(1, 0.5)', Toy())
    assert both.embeds[0, [0, 4]].tolist() == [[3, 3], [3, 3]] and both.embeds.shape == (1, 8, 2)
    assert both.pooled.tolist() == [[2.0]]


def test_plain_prompts_are_encoded_once_and_left_alone() -> None:
    class Counting(Toy):
        calls = 0

        def encode(self, tokens: TokenizedClause, without: Sequence[int | None]) -> Encoded:
            self.calls += 1
            return super().encode(tokens, without)

    toy = Counting()
    assert torch.equal(weighted("(2) 3", toy).embeds, Toy().encode(Toy().tokenize(["2 3"]), [None]).embeds)
    assert toy.calls == 1
    weighted("(2)0.5 (3)0.2 4", toy := Counting())
    assert toy.calls == 2, "one pass for all variants, one for the empty prompt"


# Arithmetic, against compel -----------------------------------------------------------------------------------------

@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # The models are too small to share.


@cache
def stack(family: str) -> TextStack:
    """Small random text encoders of a family, with CLIP's own vocabulary."""
    torch.manual_seed(0)
    specs = FAMILIES[family].text_encoders
    tokenizers = {spec.folder: load_tokenizer(spec.pad_token) for spec in specs}
    encoders = {}
    for index, spec in enumerate(specs):
        config = CLIPTextConfig(vocab_size=49408, hidden_size=32, intermediate_size=64, num_hidden_layers=3,
                                num_attention_heads=2, projection_dim=32, bos_token_id=49406, eos_token_id=49407,
                                hidden_act=["quick_gelu", "gelu"][index])
        model = (CLIPTextModelWithProjection if spec.pooled else CLIPTextModel)(config).eval()
        for name, tensor in model.named_parameters():
            if tensor.ndim >= 2:
                tensor.data = torch.randn(tensor.shape) * (0.5 if "embedding" in name else tensor.shape[-1] ** -0.5)
        encoders[spec.folder] = model
    return TextStack(FAMILIES[family], tokenizers, encoders)


def by_compel(text: str, family: str) -> torch.Tensor:
    models, parts = stack(family), []
    for spec in models.family.text_encoders:
        kind = {"last": ReturnedEmbeddingsType.LAST_HIDDEN_STATES_NORMALIZED,
                "penultimate": ReturnedEmbeddingsType.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED}[spec.layer]
        compel = Compel(models.tokenizers[spec.folder], models.encoders[spec.folder], truncate_long_prompts=False,
                        returned_embeddings_type=kind, split_long_text_mode=SplitLongTextMode.BRUTAL)
        parts.append(compel(text))
    return torch.cat(parts, dim=-1)


LONG = ", ".join(f"word{index} thing" for index in range(40))


@pytest.mark.parametrize("text", [*SAME_AS_COMPEL, f"{LONG}, (end of it)1.4", f"(very)0.6 {LONG}", f"({LONG})0.7 x++"])
def test_embeddings_equal_compels(text: str) -> None:
    ours, theirs = weighted(text, StackEncoder(stack("sd1"))).embeds, by_compel(text, "sd1")
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["sd2", "sdxl"])
@pytest.mark.parametrize("text", ["a (red cat)1.3 on the mat--", '("a cat-", "a dog").blend(1, 0.8)',
                                  '("a cat", "a dog+").and(1, 0.6)', f"{LONG} (end)0.5"])
def test_embeddings_equal_compels_in_other_families(family: str, text: str) -> None:
    torch.testing.assert_close(weighted(text, StackEncoder(stack(family))).embeds, by_compel(text, family),
                               atol=1e-4, rtol=1e-4)


def test_weights_make_a_difference() -> None:
    plain, heavy, light = (weighted(text, StackEncoder(stack("sd1"))).embeds for text in ("cat", "cat++", "cat--"))
    assert (heavy - plain).abs().max() > 0.01 and (light - plain).abs().max() > 0.01


def test_a_plain_prompt_is_the_stacks_own() -> None:
    ours, own = weighted("a cat on a mat", StackEncoder(stack("sdxl"))), stack("sdxl").encode(["a cat on a mat"])
    torch.testing.assert_close(ours.embeds, own.embeds, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.pooled, own.pooled, atol=1e-5, rtol=1e-5)


def test_a_fragment_is_a_value() -> None:
    assert parse("a cat++") == WeightedPrompt((Clause((Fragment("a"), Fragment("cat", 1.1**2))),), (1.0,))
