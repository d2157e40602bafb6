"""Files of CLIP models: what is read of them, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from kit.clip_models import (
    SIZES,
    TEXTS,
    clip_config,
    cosines,
    letter_tokenizer,
    random_clip,
    random_pictures,
    reference_cosines,
    save_clip,
)
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel

from atelier.errors import AtelierError
from atelier.score.config import config_of
from atelier.score.digest import model_digest
from atelier.score.load import open_scorer


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
    text = {"vocab_size": 49408, "max_position_embeddings": 77, "bos_token_id": 49406,
            "eos_token_id": 49407, **text, **act}
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


def test_a_file_as_hpsv2_publishes_it_scores_as_transformers_do(folder: Path, tmp_path: Path) -> None:
    """HPS_v2.1_compressed.pt: OpenCLIP's names below state_dict, beside what its training kept; a cosine too."""
    pictures = random_pictures(SIZES)
    names = open_clip_names(load_file(folder / "model.safetensors"))
    torch.save({"epoch": 1, "state_dict": {**names, "logit_scale": torch.tensor(4.6)}}, tmp_path / "HPS_v2.1.pt")
    shutil.copyfile(folder / "config.json", tmp_path / "HPS_v2.1.json")
    found = open_scorer(tmp_path / "HPS_v2.1.pt")
    found.tokenizer = open_scorer(folder).tokenizer  # the published model's is CLIP's own
    expected = open_scorer(folder).score(pictures, TEXTS)
    assert cosines(found.score(pictures, TEXTS)).tolist() == cosines(expected).tolist()


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


@pytest.mark.parametrize("part", ["text_config", "vision_config", "text_config_dict", "vision_config_dict"])
def test_a_configuration_with_something_else_than_tables_is_named(folder: Path, tmp_path: Path, part: str) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    values = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    (copy / "config.json").write_text(json.dumps({**values, part: [512]}), encoding="utf-8")
    with pytest.raises(AtelierError, match=rf"config\.json: {part} is \[512\], not a table"):
        open_scorer(copy)


def test_results_tell_models_apart_by_what_is_in_their_files(tmp_path: Path) -> None:
    file, model = tmp_path / "a.safetensors", tmp_path / "model"
    file.write_bytes(b"one")
    alone = model_digest(file)
    assert model_digest(file.rename(tmp_path / "b.safetensors")) == alone, "a file's name is no part of it"
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"one")
    whole = model_digest(model)
    (model / "README.md").write_text("any", encoding="utf-8")
    assert model_digest(model) == whole, "what is no part of the model does not count"
    (model / "config.json").write_text("{}", encoding="utf-8")
    assert len({alone, whole, model_digest(model)}) == 3


def test_a_model_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(AtelierError, match=r"score model .*gone\.safetensors cannot be read"):
        model_digest(tmp_path / "gone.safetensors")
