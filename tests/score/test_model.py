"""CLIP scores by the model: parity with transformers and torchmetrics, and every form a model comes in."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kit.clip_models import (
    SIZES,
    TEXTS,
    cosines,
    letter_tokenizer,
    random_pictures,
    reference_cosines,
    reference_processor,
)
from PIL import Image
from transformers import CLIPModel, CLIPProcessor

from atelier.errors import AtelierError
from atelier.progress import Progress
from atelier.score.crop import ClipCrop
from atelier.score.definitions import Definition
from atelier.score.load import open_scorer
from atelier.score.preprocess import MEAN, STD, pixel_values
from atelier.score.scorer import ClipScorer

CLIP_PAD = tuple(round(255 * level) for level in MEAN)


@pytest.mark.parametrize("size", [32, 33])
def test_preprocessing_is_transformers_own_bit_for_bit(size: int) -> None:
    for picture in random_pictures(SIZES):
        expected = reference_processor(size)([picture], return_tensors="pt")["pixel_values"]
        assert torch.equal(pixel_values([picture], size), expected), picture.size


def test_pad_keeps_all_and_fills_with_the_mean_colour() -> None:
    picture = Image.new("RGB", (64, 32), (255, 0, 0))
    levels = pixel_values([picture], 32, ClipCrop.PAD)[0] * torch.tensor(STD)[:, None, None]
    levels = ((levels + torch.tensor(MEAN)[:, None, None]) * 255).round().int()
    assert (levels[0, 8:24] == 255).all() and (levels[2, 8:24] == 0).all()
    for channel, level in enumerate(CLIP_PAD):
        assert (levels[channel, :8] == level).all() and (levels[channel, 24:] == level).all()


def test_crops_see_what_they_say() -> None:
    # Red sides, green middle square: only the reference crop loses the red.
    picture = Image.new("RGB", (96, 32), (255, 0, 0))
    picture.paste((0, 255, 0), (32, 0, 64, 32))
    red = {crop: (pixel_values([picture], 32, crop)[0, 0] * STD[0] + MEAN[0]).max().item() for crop in ClipCrop}
    assert red[ClipCrop.CENTER] == pytest.approx(0, abs=0.01)
    assert red[ClipCrop.PAD] == red[ClipCrop.SQUASH] == pytest.approx(1, abs=0.01)


def test_parity_with_transformers(scorer: ClipScorer, folder: Path) -> None:
    pictures = random_pictures(SIZES)
    found = cosines(scorer.score(pictures, TEXTS))
    expected = reference_cosines(folder, pictures, TEXTS)
    assert (found - expected).abs().max() < 1e-6
    assert found.std() > 0.01, "the comparison must be able to fail"


def test_parity_with_torchmetrics(scorer: ClipScorer, folder: Path) -> None:
    from torchmetrics.multimodal.clip_score import CLIPScore

    class TensorFeatures(CLIPModel):
        """torchmetrics 1.9 expects the tensors that transformers 4 gave."""

        def get_text_features(self, *args: Any, **kwargs: Any) -> Any:
            return super().get_text_features(*args, **kwargs).pooler_output

        def get_image_features(self, *args: Any, **kwargs: Any) -> Any:
            return super().get_image_features(*args, **kwargs).pooler_output

    processor = CLIPProcessor(reference_processor(), letter_tokenizer())
    metric = CLIPScore(lambda: (TensorFeatures.from_pretrained(folder).eval(), processor))
    pictures, texts = random_pictures(SIZES), ["a cat", "blue", "zebra", "qwerty uiop", "y", "0123456789"]
    tensors = [torch.from_numpy(np.array(picture)).permute(2, 0, 1) for picture in pictures]
    each = [metric(tensor, text).item() for tensor, text in zip(tensors, texts, strict=True)]
    found = scorer.score(pictures, texts, definition=Definition.TORCHMETRICS)
    assert [item.value for item in found.items] == pytest.approx(each, abs=1e-2)  # of 100
    assert max(each) > 1 and min(each) == 0


def test_neither_order_nor_chunks_nor_company_change_a_score(folder: Path) -> None:
    pictures = random_pictures(SIZES)
    one = cosines(open_scorer(folder, chunk=1).score(pictures, TEXTS))
    for chunk in (2, 4, 16):
        assert torch.allclose(cosines(open_scorer(folder, chunk=chunk).score(pictures, TEXTS)), one, atol=1e-6)
    order = [3, 0, 5, 1, 4, 2]
    turned = cosines(open_scorer(folder, chunk=4).score([pictures[i] for i in order], [TEXTS[i] for i in order]))
    assert torch.allclose(turned, one[order], atol=1e-6)


@pytest.mark.parametrize(("part", "what"), [("visual_projection", "2 of 2 pictures"),
                                            ("text_projection", "1 of 1 texts")])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_a_model_that_computes_no_numbers_is_named(folder: Path, part: str, what: str, value: float) -> None:
    scorer = open_scorer(folder)
    getattr(scorer.model, part).weight.data.fill_(value)
    with pytest.raises(AtelierError, match=f"tiny clip.*{what}.*another one"):
        scorer.score(random_pictures([(32, 32)] * 2), "a cat")


def test_each_distinct_text_is_encoded_once(scorer: ClipScorer, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = 0
    encode = scorer.model.get_text_features

    def counting(input_ids: torch.Tensor) -> Any:
        nonlocal encoded
        encoded += len(input_ids)
        return encode(input_ids=input_ids)

    monkeypatch.setattr(scorer.model, "get_text_features", counting)
    pictures = random_pictures([(32, 32)] * 6)
    scorer.score(pictures, TEXTS)
    assert encoded == len(set(TEXTS)) == 5
    scorer.score(pictures, "a cat", style="a dog")
    assert encoded == 5, "texts of an earlier call are known"
    scorer.score(pictures, "a bird")
    assert encoded == 6


def test_pictures_travel_in_chunks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer, sizes = open_scorer(folder, chunk=4), []
    encode = scorer.model.get_image_features

    def counting(pixel_values: torch.Tensor) -> Any:
        sizes.append(len(pixel_values))
        return encode(pixel_values=pixel_values)

    monkeypatch.setattr(scorer.model, "get_image_features", counting)
    scorer.score(random_pictures([(32, 32)] * 9), "a cat", references=random_pictures([(40, 40)]))
    assert sizes == [4, 4, 2]


def test_tokens_are_counted_and_what_is_cut_has_no_part(scorer: ClipScorer) -> None:
    picture = random_pictures([(32, 32)])
    score = scorer.score(picture, "two words").items[0]
    assert (score.tokens, score.cut) == (8, 0)
    full = scorer.score(picture, "x" * 75).items[0]
    assert (full.tokens, full.cut) == (75, 0)
    over = scorer.score(picture, "x" * 75 + " y").items[0]
    assert (over.tokens, over.cut) == (75, 1)
    # "xxx…" ends in a token of its own ("x</w>"), so compare two texts that differ only in what is cut.
    assert scorer.score(picture, "x" * 80 + "y").items[0].cosine == scorer.score(picture, "x" * 81).items[0].cosine


def test_prefix_style_and_references(scorer: ClipScorer) -> None:
    pictures = random_pictures([(32, 32), (50, 40)])
    plain = scorer.score(pictures, "A photo depicts a cat", definition=Definition.HESSEL)
    both = scorer.score(pictures, "a cat", prefix="A photo depicts ", style="a dog", references=[pictures[1]],
                        definition=Definition.HESSEL)
    # In a batch of another size a processor may add up in another order.
    assert [s.value for s in both.items] == pytest.approx([s.value for s in plain.items], abs=5e-6)
    assert both.items[0].text == "A photo depicts a cat"
    dog = scorer.score(pictures, "a dog", definition=Definition.HESSEL)
    assert [s.style for s in both.items] == pytest.approx([s.value for s in dog.items], abs=5e-6)
    assert both.items[1].likeness == pytest.approx(2.5, abs=1e-5), "a picture is its own likeness"
    assert both.items[0].likeness is not None and both.items[0].likeness < 2.5
    assert "style: a dog" in both.table() and "likeness" in both.table()


def test_progress_is_told_and_interrupts_end_the_work(scorer: ClipScorer) -> None:
    class Stop(Exception):
        pass

    class Watching(Progress):
        def __init__(self, stop_after: int) -> None:
            self.total, self.done, self.checks, self.stop_after = 0, 0, 0, stop_after

        def phase(self, name: str, total: int) -> None:
            self.total = total

        def advance(self, done: int, text: str = "") -> None:
            assert done > self.done
            self.done = done

        def check(self) -> None:
            self.checks += 1
            if self.checks > self.stop_after:
                raise Stop

    scorer.chunk = 2
    pictures = random_pictures([(32, 32)] * 5)
    watching = Watching(100)
    scorer.score(pictures, "a cat", progress=watching)
    assert watching.done == watching.total == 5
    stopped = Watching(1)
    with pytest.raises(Stop):
        scorer.score(pictures, "a cat", progress=stopped)
    assert stopped.done == 2


@pytest.mark.parametrize(("pictures", "texts", "message"), [
    (0, "a cat", "no pictures"), (2, ["a", "b", "c"], "2 pictures and 3 texts"), (1, "  ", "text to score .* empty"),
    (2, [], "2 pictures and 0 texts"),
])
def test_wrong_use_is_explained(scorer: ClipScorer, pictures: int, texts: Any, message: str) -> None:
    with pytest.raises(AtelierError, match=message):
        scorer.score(random_pictures([(32, 32)] * pictures), texts)


@pytest.mark.parametrize("chunk", [0, -1])
def test_a_chunk_holds_at_least_one_picture(folder: Path, chunk: int) -> None:
    with pytest.raises(AtelierError, match=f"chunk is {chunk}.*at least 1"):
        open_scorer(folder, chunk=chunk)


# Forms ---------------------------------------------------------------------------------------------------------------


def test_scores_do_not_depend_on_what_ran_before(folder: Path) -> None:
    pictures = random_pictures(SIZES)
    runs = [cosines(open_scorer(folder).score(pictures, TEXTS)).tolist() for _ in range(3)]
    assert all(a == b for a, b in pairwise(runs))
