"""Scores by other models than CLIP's own: SigLIP 2, HPSv2.1's file, aesthetic heads and DINO, against transformers."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from kit.clip_models import SIZES, clip_config, cosines, random_clip, random_pictures, save_clip
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    Siglip2Tokenizer,
    SiglipConfig,
    SiglipModel,
    ViTConfig,
    ViTModel,
)
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from atelier.errors import AtelierError
from atelier.progress import Progress
from atelier.score.aesthetic import open_head
from atelier.score.load import open_scorer
from atelier.score.picture_model import PictureModel, open_picture_model
from atelier.score.scorer import ClipScorer
from atelier.score.siglip import SQUEEZED, is_siglip

TEXTS = ["A cat", "a dog wearing Glasses", "x" * 90, "b"]
LENGTH = 16


def randomised(model: Any, seed: int = 0) -> Any:
    """The model with outputs that vary with their inputs."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in model.parameters():
        if tensor.ndim >= 2:
            tensor.data = torch.randn(tensor.shape, generator=generator) * tensor[0].numel() ** -0.5
    return model.eval()


def siglip_tokenizer() -> Siglip2Tokenizer:
    """A token for each letter, padded at the right as the published ones are."""
    names = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *"abcdefghijklmnopqrstuvwxyz"]
    return Siglip2Tokenizer(vocab={name: number for number, name in enumerate(names)}, merges=[], padding_side="right")


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("siglip") / "siglip2-tiny"
    shared = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = SiglipConfig(
        text_config={**shared, "vocab_size": 32, "max_position_embeddings": LENGTH, "projection_size": 64},
        vision_config={**shared, "image_size": 32, "patch_size": 8})
    randomised(SiglipModel(config)).save_pretrained(folder)
    siglip_tokenizer().save_pretrained(folder)
    processor(32, resample=2).save_pretrained(folder)
    return folder


def processor(size: int, resample: int) -> SiglipImageProcessorPil:
    return SiglipImageProcessorPil(size={"height": size, "width": size}, resample=resample,
                                   image_mean=[0.5] * 3, image_std=[0.5] * 3)


def test_siglip_is_transformers_own(siglip: Path) -> None:
    pictures = random_pictures(SIZES[:4])
    model = SiglipModel.from_pretrained(siglip).eval()
    words = siglip_tokenizer()(TEXTS, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt")
    pixels = processor(32, resample=2)(pictures, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        out = model(input_ids=words["input_ids"], pixel_values=pixels)
        expected = torch.diag((out.logits_per_image - model.logit_bias) / model.logit_scale.exp())
    scores = open_scorer(siglip).score(pictures, TEXTS)
    assert torch.allclose(cosines(scores), expected, atol=1e-5)
    assert expected.std() > 1e-3, "too alike to tell"
    assert (scores.crop.value, scores.note) == ("squash", SQUEEZED)
    assert [(score.tokens, score.cut) for score in scores.items] == [
        (len(ids[:LENGTH]), max(0, len(ids) - LENGTH)) for ids in siglip_tokenizer()(TEXTS)["input_ids"]]


@pytest.mark.parametrize(("change", "said"), [
    (lambda folder: edit(folder, model_type="siglip2"), "any shape"),
    (lambda folder: (folder / "tokenizer.json").unlink(), r"lacks tokenizer\.json"),
    (lambda folder: save_file({k: v for k, v in load_file(folder / "model.safetensors").items() if "fc1" not in k},
                              folder / "model.safetensors"), r"lacks .*fc1"),
    (lambda folder: (folder / "preprocessor_config.json").write_text('{"image_mean": [1]}'), "three numbers")])
def test_a_siglip_that_gives_no_score_is_refused(siglip: Path, tmp_path: Path, change: Any, said: str) -> None:
    folder = shutil.copytree(siglip, tmp_path / "copy")
    change(folder)
    with pytest.raises(AtelierError, match=said):
        open_scorer(folder)


def test_siglip_is_known_by_its_folder_or_its_weights(siglip: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(siglip, tmp_path / "copy")
    other = shutil.copy(folder / "model.safetensors", folder / "other.safetensors")
    assert is_siglip(folder) and is_siglip(folder / "model.safetensors")
    assert not is_siglip(Path(other)), "the configuration beside it is another file's"
    assert not is_siglip(tmp_path)


@pytest.mark.parametrize("text", ["", " \n"])
def test_siglip_takes_no_empty_text(siglip: Path, text: str) -> None:
    with pytest.raises(AtelierError, match=r"text to score against is empty.*Give the prompt"):
        open_scorer(siglip).score(random_pictures([(32, 32)]), text)


def test_a_siglip_whose_tokenizer_knows_more_than_the_model_is_refused(siglip: Path) -> None:
    scorer = open_scorer(siglip)
    last = "zz"  # "z" is token 31, the last of the model's 32
    assert scorer.tokens(last).used > 0
    scorer.model.config.text_config.vocab_size = 31
    assert scorer.tokens("yy").used > 0
    with pytest.raises(AtelierError, match=r"siglip2-tiny makes token 31, which the model does not know"):
        scorer.tokens(last)


def edit(folder: Path, **values: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> ClipScorer:
    return open_scorer(save_clip(tmp_path_factory.mktemp("clip") / "tiny", random_clip(clip_config(projection=48))))


def head(widths: list[int], names: list[str]) -> tuple[torch.nn.Sequential, dict[str, torch.Tensor]]:
    layers = [torch.nn.Linear(a, b) for a, b in pairwise(widths)]
    return torch.nn.Sequential(*layers), {
        f"{name}{part}": getattr(layer, part).detach() for name, layer in zip(names, layers, strict=True)
        for part in ("weight", "bias")}


@pytest.mark.parametrize(("widths", "names", "ending"), [
    ([48, 1], [""], "pth"), ([48, 20, 12, 1], ["layers.0.", "layers.2.", "layers.10."], "safetensors")])
def test_an_aesthetic_head_is_its_layers_on_the_unit_embedding(clip: ClipScorer, tmp_path: Path, widths: list[int],
                                                               names: list[str], ending: str) -> None:
    reference, state = head(widths, names)
    path = tmp_path / f"head.{ending}"
    save_file(state, path) if ending == "safetensors" else torch.save(state, path)
    pictures = random_pictures(SIZES)
    scores = clip.score(pictures, "a cat", aesthetic=open_head(path))
    with torch.no_grad():
        expected = reference(clip.encode_pictures(pictures))[:, 0]
    assert [score.aesthetic for score in scores.items] == pytest.approx(expected.tolist(), abs=1e-5)
    assert "aesthetic" in scores.table().splitlines()[0] and "aesthetic by head" in scores.table()
    assert scores.csv().splitlines()[0].endswith("aesthetic,likeness_by,aesthetic_by")


@pytest.mark.parametrize(("state", "said"), [
    ({"weight": torch.zeros(2, 48), "bias": torch.zeros(2)}, "2 numbers"),
    ({"weight": torch.zeros(1, 48)}, "not weights and biases"),
    ({"a.0.weight": torch.zeros(5, 48), "a.0.bias": torch.zeros(5), "a.1.weight": torch.zeros(1, 4),
      "a.1.bias": torch.zeros(1)}, "do not follow")])
def test_a_file_that_is_no_head_is_refused(tmp_path: Path, state: dict[str, torch.Tensor], said: str) -> None:
    save_file(state, tmp_path / "x.safetensors")
    with pytest.raises(AtelierError, match=said):
        open_head(tmp_path / "x.safetensors")


def test_a_head_that_cannot_be_read_is_named_with_where_to_get_one(tmp_path: Path) -> None:
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(b"\x10\0\0\0\0\0\0\0{\"a\":")
    with pytest.raises(AtelierError, match=r"torn\.safetensors.*linearMSE\.pth"):
        open_head(torn)


def test_a_head_for_another_clip_is_refused(clip: ClipScorer, tmp_path: Path) -> None:
    save_file(head([768, 1], [""])[1], tmp_path / "l14.safetensors")
    with pytest.raises(AtelierError, match="takes embeddings of 768 numbers, and the CLIP model gives 48"):
        clip.score(random_pictures([(32, 32)]), "a cat", aesthetic=open_head(tmp_path / "l14.safetensors"))


SMALL: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.mark.parametrize("model", [
    lambda: Dinov2Model(Dinov2Config(image_size=224, patch_size=56, **SMALL)),
    lambda: Dinov2WithRegistersModel(Dinov2WithRegistersConfig(image_size=224, patch_size=56, **SMALL)),
    lambda: ViTModel(ViTConfig(image_size=224, patch_size=56, intermediate_size=64, **SMALL), add_pooling_layer=False),
], ids=["dinov2", "dinov2 with registers", "dino"])
def test_likeness_by_dino_is_the_cosine_of_transformers_class_tokens(clip: ClipScorer, tmp_path: Path, model: Any
                                                                     ) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        own = randomised(model())
    own.save_pretrained(tmp_path / "dino")
    pictures, references = random_pictures(SIZES), random_pictures([(224, 224), (300, 224)], seed=9)
    squares = [middle_square(picture) for picture in (*pictures, *references)]
    pixels = ViTImageProcessorPil(size={"height": 224, "width": 224}, image_mean=[0.485, 0.456, 0.406],
                                  image_std=[0.229, 0.224, 0.225], do_resize=False)(squares, return_tensors="pt")
    with torch.no_grad():
        tokens = own(pixel_values=pixels["pixel_values"]).last_hidden_state[:, 0]
    unit = torch.nn.functional.normalize(tokens, dim=-1)
    expected = (unit[:len(pictures)] @ unit[len(pictures):].T).mean(dim=1)
    found = open_picture_model(tmp_path / "dino").likeness(pictures, references, Progress())
    assert torch.allclose(found, expected, atol=1e-5) and expected.std() > 1e-3
    scores = clip.score(pictures, "a cat", references=references, likeness_by=open_picture_model(tmp_path / "dino"))
    assert [score.likeness for score in scores.items] == pytest.approx(expected.tolist(), abs=1e-5)
    assert "likeness by dino" in scores.table()


def middle_square(picture: Image.Image) -> Image.Image:
    """The middle square at 224 pixels: shorter side first, as DINO's evaluation does."""
    side = min(picture.size)
    width, height = (int(224 * length / side) for length in picture.size)
    left, top = (width - 224) // 2, (height - 224) // 2
    return picture.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + 224, top + 224))


@pytest.mark.parametrize(("config", "said"), [({"model_type": "clip"}, "kind 'clip', which is no DINO"),
                                              (None, "no folder with a config")])
def test_a_folder_that_is_no_dino_is_refused(tmp_path: Path, config: Any, said: str) -> None:
    if config:
        (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(AtelierError, match=said):
        open_picture_model(tmp_path)


@pytest.mark.parametrize("value", [float("nan"), 0.0])
def test_a_dino_that_computes_no_numbers_is_named(value: float) -> None:
    model = Dinov2Model(Dinov2Config(image_size=224, patch_size=56, **SMALL)).eval()
    for tensor in model.parameters():
        tensor.data.fill_(value)
    with pytest.raises(AtelierError, match="my dino computed no numbers for a picture"):
        PictureModel(model, "my dino").encode(random_pictures([(32, 32)]), Progress())


def test_a_dino_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    Dinov2Model(Dinov2Config(image_size=224, patch_size=56, **SMALL)).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    save_file({name: tensor for name, tensor in weights.items() if "fc1" not in name}, tmp_path / "model.safetensors",
              metadata={"format": "pt"})
    with pytest.raises(AtelierError, match=r"lacks 4 tensors, .*fc1"):
        open_picture_model(tmp_path)
