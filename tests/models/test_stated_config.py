"""A configuration in a diffusers folder that the weights contradict, or that no model can have, is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from kit.checkpoints import write_sd1

from atelier.convert.folder import to_folder
from atelier.errors import AtelierError
from atelier.models import tokenizer_files
from atelier.models.load import load_text, load_unet, load_vae
from atelier.models.open import open_model
from atelier.models.tokenizer_files import checked_files


def load_all(folder: Path) -> None:
    model = open_model(folder)
    load_text(model)
    load_vae(model)
    load_unet(model)


BUILDING = ("dual_cross_attention", "conv_in_kernel", "norm_num_groups")
"""Fields that are refused once the model is built; then the component or a tensor of it is named."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stated")
    to_folder(write_sd1(folder / "model.safetensors", shape="tiny"), folder / "model")
    return folder / "model"


@pytest.mark.parametrize(("file", "field", "value", "said"), [
    ("unet/config.json", "layers_per_block", 10**9, "1000000000"),
    ("unet/config.json", "layers_per_block", 5, "the weights beside it"),
    ("unet/config.json", "down_block_types", ["FooBlock2D"] * 4, "FooBlock2D"),
    ("unet/config.json", "block_out_channels", "32", "'32'"),
    ("unet/config.json", "cross_attention_dim", 7, "the weights beside it"),
    ("unet/config.json", "norm_num_groups", 0, "norm_num_groups is 0"),
    # What passes those checks and leaves no trace in the shapes is for the libraries that build the model to refuse.
    ("unet/config.json", "norm_num_groups", 7, "cannot be used: "),
    ("unet/config.json", "dual_cross_attention", True, "The unet lacks "),
    ("unet/config.json", "conv_in_kernel", 5, "'conv_in.weight' has the shape [32, 4, 3, 3], not [32, 4, 5, 5]"),
    ("vae/config.json", "latent_channels", 10**9, "1000000000"),
    ("vae/config.json", "act_fn", "tanhh", "tanhh"),
    ("text_encoder/config.json", "num_hidden_layers", 10**9, "1000000000"),
    ("text_encoder/config.json", "hidden_act", ["gelu"], "hidden_act"),
    ("text_encoder/config.json", "vocab_size", 5, "the weights beside it"),
    ("scheduler/scheduler_config.json", "num_train_timesteps", 10**9, "1000000000"),
    ("scheduler/scheduler_config.json", "beta_schedule", "square", "square"),
    ("scheduler/scheduler_config.json", "trained_betas", [0.1, 0.2], "trained_betas has 2 numbers"),
])
def test_file_field_and_value_are_named(file: str, field: str, value: Any, said: str, source: Path) -> None:
    path = source / file
    stated = path.read_text(encoding="utf-8")
    path.write_text(json.dumps({**json.loads(stated), field: value}), encoding="utf-8")
    try:
        with pytest.raises(AtelierError) as caught:
            load_all(source)
    finally:
        path.write_text(stated, encoding="utf-8")
    assert said in str(caught.value)
    if field not in BUILDING:
        assert str(Path(file)) in str(caught.value) and field in str(caught.value)


@pytest.mark.parametrize(("file", "content", "said"), [
    ("unet/config.json", b"\xff\xfe{}", "not UTF-8"), ("unet/config.json", b"[1]", "not a JSON object"),
    ("unet/config.json", b"[" * 100_000, "nested"), ("vae/config.json", b'{"a": ' + b"9" * 5000 + b"}", "5000 digits"),
    ("scheduler/scheduler_config.json", b"{", "not readable JSON"),
    ("tokenizer/vocab.json", b'{"a": 1, "b": 1}', "the number 1"), ("tokenizer/vocab.json", b'{"a": "x"}', "'x'"),
    ("tokenizer/vocab.json", b"{}", "lists 0 tokens"), ("tokenizer/vocab.json", b'{"a": -1}', "'a' is -1"),
    ("tokenizer/vocab.json", b'{"a": 1000000}', "'a' is 1000000"), ("tokenizer/vocab.json", b'{"a": true}', "is True"),
    ("tokenizer/merges.txt", b"#version: 0.2\nzzz qqq\n", "zzz"), ("tokenizer/merges.txt", b"\xff\xfe", "not UTF-8"),
    ("tokenizer/merges.txt", b"a\0b\n", "merges.txt is not readable: a text in it holds a null character"),
    ("tokenizer/merges.txt", b"i n g\n", "hold 'i n g', which is no pair"),
    ("tokenizer/added_tokens.json", b'{"<cat>": "x"}', "the number of '<cat>' is 'x'"),
    ("tokenizer/special_tokens_map.json", b'{"bos_token": "<cat>"}', "bos_token is '<cat>', which is no token"),
    ("tokenizer/special_tokens_map.json", b'{"pad_token": {"content": 3}}', "pad_token is {'content': 3}, which"),
    ("tokenizer/tokenizer_config.json", b'{"errors": 1}', "errors is 1."),
    ("tokenizer/tokenizer_config.json", b'{"do_lower_case": "yes"}', "do_lower_case is 'yes'."),
    ("tokenizer/tokenizer_config.json", b'{"model_max_length": true}', "model_max_length is True."),
    ("tokenizer/tokenizer_config.json", b'{"model_max_length": 0}', "model_max_length is 0."),
    ("tokenizer/tokenizer_config.json", b'{"model_max_length": NaN}', "model_max_length is nan."),
])
def test_a_file_that_cannot_be_read_is_named(file: str, content: bytes, said: str, source: Path) -> None:
    path = source / file
    before = path.read_bytes() if path.exists() else None
    path.write_bytes(content)
    try:
        with pytest.raises(AtelierError) as caught:
            load_all(source)
    finally:
        path.unlink() if before is None else path.write_bytes(before)
    assert Path(file).parent.name in str(caught.value) and said in str(caught.value)


def test_what_the_weights_do_not_say_is_taken_from_the_file(source: Path) -> None:
    """Head sizes leave no trace in the shapes; without this the check above could refuse everything."""
    load_all(source)
    stated = json.loads((source / "unet/config.json").read_text(encoding="utf-8"))
    assert load_unet(open_model(source)).config["attention_head_dim"] == stated["attention_head_dim"]


@pytest.mark.parametrize("length", [1, 77.0, 1e30])
def test_a_longest_text_is_taken_as_programs_write_it(length: float, source: Path) -> None:
    path = source / "tokenizer/tokenizer_config.json"
    stated = path.read_text(encoding="utf-8")
    path.write_text(json.dumps({"model_max_length": length}), encoding="utf-8")
    try:
        assert json.loads(checked_files(path.parent)[path.name])["model_max_length"] == length
    finally:
        path.write_text(stated, encoding="utf-8")


TOKENIZER_JSON = {"model": {"vocab": {"a": 0, "b": 1, "ab": 2, "<s>": 3, "</s>": 4}, "merges": ["a b"]}}


@pytest.mark.parametrize("merge", ["a b", ["a", "b"]])
def test_a_tokenizer_in_one_file_is_read_in_both_spellings_of_merges(merge: Any, tmp_path: Path) -> None:
    model = TOKENIZER_JSON["model"]
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {**model, "merges": [merge]}}), encoding="utf-8")
    (tmp_path / "added_tokens.json").write_text('{"<cat>": 5}', encoding="utf-8")
    (tmp_path / "special_tokens_map.json").write_text('{"pad_token": {"content": "<cat>"}, "bos_token": null}',
                                                      encoding="utf-8")
    files = checked_files(tmp_path)
    assert json.loads(files["vocab.json"]) == model["vocab"]
    assert files["merges.txt"] == "#version: 0.2\na b\n"
    assert json.loads(files["added_tokens.json"]) == {"<cat>": 5}
    assert json.loads(files["special_tokens_map.json"]) == {"pad_token": "<cat>"}


@pytest.mark.parametrize(("model", "said"), [
    ({}, "holds no vocabulary"), ({"vocab": ["a"]}, "holds no vocabulary"), ([], "holds no vocabulary"),
    ({"vocab": {"a": 0}}, "holds no list of merges"), ({"vocab": {"a": 0}, "merges": "a b"}, "holds no list of merges"),
    ({"vocab": {"a": 0}, "merges": [["a"]]}, r"hold \['a'\], which is no pair"),
    ({"vocab": {"a": 0}, "merges": [["a", 1]]}, r"hold \['a', 1\], which is no pair"),
    ({"vocab": {"a": 0}, "merges": [7]}, "hold 7, which is no pair"),
])
def test_a_tokenizer_in_one_file_that_says_nothing_is_named(model: Any, said: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model}), encoding="utf-8")
    with pytest.raises(AtelierError, match=said) as caught:
        checked_files(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_tokenizer_of_as_many_tokens_as_allowed_is_read_and_of_one_more_refused(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(TOKENIZER_JSON), encoding="utf-8")
    monkeypatch.setattr(tokenizer_files, "MOST_TOKENS", 5)
    checked_files(tmp_path)
    monkeypatch.setattr(tokenizer_files, "MOST_TOKENS", 4)
    with pytest.raises(AtelierError, match=r"tokenizer\.json lists 5 tokens"):
        checked_files(tmp_path)


def test_merges_that_the_disk_does_not_give_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: Path, limits: object) -> bytes:
        raise OSError(5, "Input/output error")

    (tmp_path / "vocab.json").write_text('{"a": 0}', encoding="utf-8")
    (tmp_path / "merges.txt").write_text("", encoding="utf-8")
    monkeypatch.setattr(tokenizer_files, "read_limited", broken)
    with pytest.raises(AtelierError, match=r"merges\.txt cannot be read: Input/output error\."):
        checked_files(tmp_path)


@pytest.mark.parametrize("file", ["unet/config.json", "scheduler/scheduler_config.json"])
def test_a_configuration_that_is_missing_is_derived_from_the_weights(file: str, source: Path) -> None:
    whole, path = open_model(source), source / file
    stated = path.read_bytes()
    path.unlink()
    try:
        found = open_model(source)
        config = load_unet(found).config
    finally:
        path.write_bytes(stated)
    assert found.noise_schedule.digest == whole.noise_schedule.digest
    assert config["block_out_channels"] == load_unet(whole).config["block_out_channels"]
