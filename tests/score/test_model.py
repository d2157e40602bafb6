"""CLIP scores by the model: parity with transformers and torchmetrics, and every form a model comes in."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kit.clip_models import (
    clip_config,
    letter_tokenizer,
    random_clip,
    random_pictures,
    reference_cosines,
    reference_processor,
    save_clip,
)
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel, CLIPProcessor

from atelier.errors import AtelierError
from atelier.progress import Progress
from atelier.score.config import config_of
from atelier.score.crop import ClipCrop
from atelier.score.definitions import Definition
from atelier.score.load import open_scorer
from atelier.score.preprocess import MEAN, STD, pixel_values
from atelier.score.scorer import ClipScorer

SIZES = [(40, 50), (64, 32), (32, 32), (33, 91), (200, 201), (20, 20)]
TEXTS = ["a cat", "a dog", "a cat", "a cat wearing neon-glasses", "x" * 100, "b"]
CLIP_PAD = tuple(round(255 * level) for level in MEAN)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("models") / "tiny clip", random_clip(clip_config()))


@pytest.fixture
def scorer(folder: Path) -> Iterator[ClipScorer]:
    yield open_scorer(folder)


def cosines(scores: Any) -> torch.Tensor:
    return torch.tensor([item.cosine for item in scores.items])


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


# Forms ---------------------------------------------------------------------------------------------------------------

def tower(width: int, layers: int, heads: int, mlp: int, **more: int | str) -> dict[str, Any]:
    return dict(hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=mlp, **more)


# As published in the config.json of each: text tower, vision tower, projection, activation.
PUBLISHED = {
    "openai/clip-vit-base-patch32": (tower(512, 12, 8, 2048), tower(768, 12, 12, 3072, patch_size=32), 512, "quick"),
    "openai/clip-vit-base-patch16": (tower(512, 12, 8, 2048), tower(768, 12, 12, 3072, patch_size=16), 512, "quick"),
    "openai/clip-vit-large-patch14": (tower(768, 12, 12, 3072), tower(1024, 24, 16, 4096, patch_size=14), 768, "quick"),
    "openai/clip-vit-large-patch14-336": (
        tower(768, 12, 12, 3072), tower(1024, 24, 16, 4096, patch_size=14, image_size=336), 768, "quick"),
    "zer0int/LongCLIP-L-Diffusers": (
        tower(768, 12, 12, 3072, max_position_embeddings=248), tower(1024, 24, 16, 4096, patch_size=14), 768, "quick"),
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K": (
        tower(1024, 24, 16, 4096), tower(1280, 32, 16, 5120, patch_size=14), 1024, "gelu"),
    "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k": (
        tower(1280, 32, 20, 5120), tower(1664, 48, 16, 8192, patch_size=14), 1280, "gelu"),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_configuration_of_published_models_follows_from_their_shapes(name: str) -> None:
    text, vision, projection, activation = PUBLISHED[name]
    act = {"hidden_act": "quick_gelu" if activation == "quick" else "gelu", "projection_dim": projection}
    text = {"vocab_size": 49408, "max_position_embeddings": 77, "eos_token_id": 49407, **text, **act}
    vision = {"image_size": 224, **vision, **act}
    with torch.device("meta"):
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=projection))
    derived = config_of({key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}, None, name)
    assert derived["projection_dim"] == projection
    assert text.items() <= derived["text_config"].items()
    assert vision.items() <= derived["vision_config"].items()


def test_without_a_configuration_the_scores_are_the_same_and_say_so(tmp_path: Path) -> None:
    model = random_clip(clip_config(positions=248))
    save_clip(tmp_path / "with", model)
    save_clip(tmp_path / "without", model, config=False)
    pictures = random_pictures([(40, 30)] * 2)
    configured, derived = (open_scorer(tmp_path / name).score(pictures, "a cat " * 30) for name in ("with", "without"))
    assert cosines(derived).tolist() == cosines(configured).tolist()
    assert derived.items[0].tokens == 120, "four letters each time, and nothing is cut"
    assert configured.note == "" and "quick_gelu" in derived.note


def test_what_no_shape_shows_comes_from_the_configuration(tmp_path: Path) -> None:
    """LAION's B/32 has the shapes of OpenAI's and another activation."""
    config = clip_config(activation="gelu", vision_width=256)
    config.vision_config.num_attention_heads = 8
    folder = save_clip(tmp_path / "laion", random_clip(config))
    pictures = random_pictures([(40, 30), (30, 40)])
    expected = reference_cosines(folder, pictures, ["a cat", "a dog"])
    assert torch.allclose(cosines(open_scorer(folder).score(pictures, ["a cat", "a dog"])), expected, atol=1e-6)
    (folder / "config.json").unlink()
    assert not torch.allclose(cosines(open_scorer(folder).score(pictures, ["a cat", "a dog"])), expected, atol=1e-4)


def test_a_configuration_that_contradicts_the_weights_loses(tmp_path: Path) -> None:
    """LongCLIP's published config.json says 77 positions; its weights have 248."""
    folder = save_clip(tmp_path / "long", random_clip(clip_config(positions=248)))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["text_config"]["max_position_embeddings"] = 77
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert open_scorer(folder).score(random_pictures([(32, 32)]), "x" * 300).items[0].tokens == 246


def test_a_single_file_and_shards_give_the_same(folder: Path, tmp_path: Path) -> None:
    pictures = random_pictures(SIZES)
    expected = cosines(open_scorer(folder).score(pictures, "a cat"))
    model = CLIPModel.from_pretrained(folder)
    model.save_pretrained(tmp_path / "shards", max_shard_size="200KB")
    letter_tokenizer().save_pretrained(tmp_path / "shards")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    assert cosines(open_scorer(tmp_path / "shards").score(pictures, "a cat")).tolist() == expected.tolist()

    # A single file has no tokenizer of its own: CLIP's usual one is used, so compare the pictures.
    single = tmp_path / "ViT tiny.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in model.state_dict().items()}, single)
    scorer = open_scorer(single)
    assert (scorer.name, open_scorer(folder).name) == ("ViT tiny", "tiny clip")
    assert torch.equal(scorer.encode_pictures(pictures), open_scorer(folder).encode_pictures(pictures))
    with pytest.raises(AtelierError, match=r"tokenizer of ViT tiny makes token .* knows 514"):
        scorer.score(pictures, "a cat")


def open_clip_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A CLIPModel's tensors as OpenCLIP saves them."""
    named = {"token_embedding.weight": "text_model.embeddings.token_embedding.weight",
             "positional_embedding": "text_model.embeddings.position_embedding.weight",
             "visual.class_embedding": "vision_model.embeddings.class_embedding",
             "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
             "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
             **{f"{theirs}.{end}": f"{ours}.{end}" for end in ("weight", "bias") for theirs, ours in (
                 ("ln_final", "text_model.final_layer_norm"), ("visual.ln_pre", "vision_model.pre_layrnorm"),
                 ("visual.ln_post", "vision_model.post_layernorm"))}}
    made = {theirs: state[ours] for theirs, ours in named.items()}
    made["logit_scale"] = state["logit_scale"]
    made["text_projection"] = state["text_projection.weight"].T
    made["visual.proj"] = state["visual_projection.weight"].T
    for side, tower in (("", "text_model"), ("visual.", "vision_model")):
        for layer in range(2):
            block, mine = f"{side}transformer.resblocks.{layer}", f"{tower}.encoder.layers.{layer}"
            for end in ("weight", "bias"):
                made[f"{block}.attn.in_proj_{end}"] = torch.cat(
                    [state[f"{mine}.self_attn.{part}_proj.{end}"] for part in "qkv"])
                for theirs, ours in (("attn.out_proj", "self_attn.out_proj"), ("ln_1", "layer_norm1"),
                                     ("ln_2", "layer_norm2"), ("mlp.c_fc", "mlp.fc1"), ("mlp.c_proj", "mlp.fc2")):
                    made[f"{block}.{theirs}.{end}"] = state[f"{mine}.{ours}.{end}"]
    return {name: tensor.contiguous() for name, tensor in made.items()}


def test_open_clips_files_score_as_transformers_do(folder: Path, tmp_path: Path) -> None:
    pictures = random_pictures(SIZES)
    copy = tmp_path / "openai" / "tiny clip"
    shutil.copytree(folder, copy)
    save_file(open_clip_names(load_file(folder / "model.safetensors")), copy / "model.safetensors")
    assert cosines(open_scorer(copy).score(pictures, TEXTS)).tolist() == cosines(
        open_scorer(folder).score(pictures, TEXTS)).tolist()


def test_half_precision_files_are_read(folder: Path, tmp_path: Path) -> None:
    pictures = random_pictures(SIZES)
    CLIPModel.from_pretrained(folder).half().save_pretrained(tmp_path / "half")
    letter_tokenizer().save_pretrained(tmp_path / "half")
    half, full = (cosines(open_scorer(path).score(pictures, TEXTS)) for path in (tmp_path / "half", folder))
    assert torch.allclose(half, full, atol=2e-3)


@pytest.mark.parametrize(("lost", "message"), [
    ("text_projection.", "lacks a text projection.*Stable Diffusion"),
    ("visual_projection.", "lacks a picture projection"),
    ("vision_model.", "lacks a picture encoder"),
    ("text_model.", "lacks a text encoder"),
    ("text_model.encoder.layers.1.mlp.fc1.bias", "lacks 1 tensors, text_model.encoder.layers.1.mlp.fc1.bias first"),
])
def test_parts_of_a_model_are_refused(folder: Path, tmp_path: Path, lost: str, message: str) -> None:
    state = {key: value for key, value in load_file(folder / "model.safetensors").items() if not key.startswith(lost)}
    save_file(state, tmp_path / "part.safetensors")
    with pytest.raises(AtelierError, match=message):
        open_scorer(tmp_path / "part.safetensors")


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("name", [
    "text_model.embeddings.token_embedding.weight", "text_model.embeddings.position_embedding.weight",
    "vision_model.embeddings.patch_embedding.weight", "vision_model.embeddings.position_embedding.weight"])
def test_a_model_without_embeddings_is_named(folder: Path, tmp_path: Path, name: str, flat: bool) -> None:
    state = load_file(folder / "model.safetensors")
    tensor = state.pop(name)
    save_file({**state, name: tensor.flatten()} if flat else state, tmp_path / "part.safetensors")
    with pytest.raises(AtelierError, match=f"part lacks {name}"):
        open_scorer(tmp_path / "part.safetensors")


def test_a_tensor_of_another_shape_is_named(folder: Path, tmp_path: Path) -> None:
    state = load_file(folder / "model.safetensors")
    name = "text_model.encoder.layers.1.mlp.fc2.weight"
    save_file({**state, name: state[name].T.contiguous()[1:].contiguous()}, tmp_path / "odd.safetensors")
    with pytest.raises(AtelierError, match=rf"odd has {name} in another shape .*: \(\d+, \d+\), not"):
        open_scorer(tmp_path / "odd.safetensors")


@pytest.mark.parametrize("scale", [None, torch.ones(1)])
def test_the_scale_of_the_training_does_not_matter(folder: Path, tmp_path: Path, scale: torch.Tensor | None) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / folder.name))
    state = {key: value for key, value in load_file(folder / "model.safetensors").items() if key != "logit_scale"}
    save_file({**state, "logit_scale": scale} if scale is not None else state, copy / "model.safetensors")
    pictures = random_pictures([(40, 40)])
    assert torch.equal(cosines(open_scorer(copy).score(pictures, "a cat")),
                       cosines(open_scorer(folder).score(pictures, "a cat")))


def test_other_layouts_and_broken_files_are_refused(tmp_path: Path) -> None:
    save_file({"visual.conv1.weight": torch.zeros(1)}, tmp_path / "open_clip.safetensors")
    with pytest.raises(AtelierError, match="open_clip lacks a text encoder"):
        open_scorer(tmp_path / "open_clip.safetensors")
    (tmp_path / "torn.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{\"a\":")
    with pytest.raises(AtelierError, match=r"torn\.safetensors"):
        open_scorer(tmp_path / "torn.safetensors")
    (tmp_path / "empty").mkdir()
    with pytest.raises(AtelierError, match=r"no weights.*CLIP model"):
        open_scorer(tmp_path / "empty")


def test_scores_do_not_depend_on_what_ran_before(folder: Path) -> None:
    pictures = random_pictures(SIZES)
    runs = [cosines(open_scorer(folder).score(pictures, TEXTS)).tolist() for _ in range(3)]
    assert all(a == b for a, b in pairwise(runs))
