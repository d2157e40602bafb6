"""LoRA files and folders that are refused, each by what is wrong with it."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from atelier.errors import AtelierError
from atelier.lora import file as lora_file
from atelier.lora.convert import convert_lora
from atelier.lora.file import load_lora, parse_lora, read_lora, save_lora
from atelier.lora.merge import merge_into
from atelier.lora.weights import LoraModule, select
from atelier.lora.written import WrittenAs

STEM = "lora_unet_mid_block_attentions_0_proj_in"
PAIR = {f"{STEM}.lora_down.weight": torch.ones(2, 4), f"{STEM}.lora_up.weight": torch.ones(4, 2)}
BAD: dict[str, tuple[dict[str, Tensor], str]] = {
    "no tensors": ({}, "holds no LoRA tensors"),
    "all zero": ({**PAIR, f"{STEM}.lora_up.weight": torch.zeros(4, 2)}, "only zeros"),
    "NaN": ({**PAIR, f"{STEM}.lora_up.weight": torch.full((4, 2), torch.nan)}, "NaN or infinite values in 1 of 1"),
    "infinite magnitude": ({**PAIR, f"{STEM}.dora_scale": torch.full((4, 1), torch.inf)}, "NaN or infinite"),
    "another model": ({"lora_unet_double_blocks_0_img_attn_proj.lora_up.weight": torch.ones(4, 2),
                       "lora_unet_double_blocks_0_img_attn_proj.lora_down.weight": torch.ones(2, 4)},
                      "none of its 2 keys"),
    "one half": ({f"{STEM}.lora_up.weight": torch.ones(4, 2)}, "none of its 1 keys"),
    "Tucker format of another rank": ({**PAIR, f"{STEM}.lora_mid.weight": torch.ones(2, 3, 3, 3)},
                                      rf"bad\.safetensors: {STEM}\.lora_mid\.weight is of shape \[2, 3, 3, 3\]"),
    "LoHa of two sizes": ({f"{STEM}.hada_w1_a": torch.ones(4, 2), f"{STEM}.hada_w1_b": torch.ones(2, 4),
                           f"{STEM}.hada_w2_a": torch.ones(3, 2), f"{STEM}.hada_w2_b": torch.ones(2, 4)},
                          r"bad\.safetensors: the tensors of the layer unet\.mid_block.*LoHa.*do not fit together"),
    "magnitudes of another size, of a LoHa": (
        {**{f"{STEM}.hada_w{n}_{side}": torch.ones(4, 2) if side == "a" else torch.ones(2, 6)
            for n in (1, 2) for side in "ab"}, f"{STEM}.dora_scale": torch.ones(5, 1)},
        r"LoHa.*do not fit together.*dora_scale holds 5 numbers"),
    "LoKr of zeros": ({f"{STEM}.lokr_w1": torch.ones(2, 2), f"{STEM}.lokr_w2": torch.zeros(2, 2)}, "only zeros"),
    "magnitudes of another size": ({**PAIR, f"{STEM}.dora_scale": torch.ones(1, 3)},
                                   rf"bad\.safetensors: {STEM}\.dora_scale holds 3 numbers for 4"),
    "an alpha of several numbers": ({**PAIR, f"{STEM}.alpha": torch.ones(4)},
                                    rf"bad\.safetensors: {STEM}\.alpha holds 4 numbers"),
    "ranks that differ": ({**PAIR, f"{STEM}.lora_up.weight": torch.ones(4, 3)}, "do not fit together"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_would_do_nothing_or_harm_is_refused(case: str, tmp_path: Path) -> None:
    state, message = BAD[case]
    save_file(state, tmp_path / "bad.safetensors")
    with pytest.raises(AtelierError, match=message):
        convert_lora(tmp_path / "bad.safetensors", tmp_path / "out.safetensors", "kohya")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.safetensors"]


@pytest.mark.parametrize(("entry", "key"), [
    ("[]", ""), ("null", ""), ("{", ""), ("[" * 100_000, ""), ('{"unet.lora_alpha": "x"}', "unet.lora_alpha"),
    ('{"unet.lora_alpha": null}', "unet.lora_alpha"), ('{"unet.lora_alpha": NaN}', "unet.lora_alpha"),
    ('{"unet.lora_alpha": 1' + "0" * 400 + "}", "unet.lora_alpha"),
    ('{"unet.lora_alpha": 8, "unet.alpha_pattern": ["a"]}', "unet.alpha_pattern"),
    ('{"unet.lora_alpha": 8, "unet.alpha_pattern": {"(": 4}}', "unet.alpha_pattern"),
    ('{"unet.lora_alpha": 8, "unet.alpha_pattern": {"a": "4"}}', "unet.alpha_pattern"),
    ('{"unet.lora_alpha": 8, "unet.alpha_pattern": {"to_[qk": 4}}', "unet.alpha_pattern is .*a class"),
    ('{"unet.lora_alpha": 8, "unet.use_rslora": "false"}', "unet.use_rslora"),
], ids=lambda text: text[:50])
def test_a_damaged_header_entry_is_named(entry: str, key: str, tmp_path: Path) -> None:
    save_file(PAIR, tmp_path / "bad.safetensors", metadata={"lora_adapter_metadata": entry})
    with pytest.raises(AtelierError, match=rf"bad\.safetensors: the header entry lora_adapter_metadata.*{key} is"):
        read_lora(tmp_path / "bad.safetensors")


def test_no_other_folder_is_replaced(tmp_path: Path) -> None:
    save_file(PAIR, tmp_path / "good.safetensors")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work", encoding="utf-8")
    for format, destination in (("peft", mine), ("kohya", mine), ("kohya", tmp_path / "good.safetensors"),
                              ("peft", tmp_path / "good.safetensors"), ("webui", tmp_path / "x.safetensors")):
        with pytest.raises(AtelierError):
            convert_lora(tmp_path / "good.safetensors", destination, format)
    assert (mine / "thesis.txt").read_text(encoding="utf-8") == "years of work"
    assert load_file(tmp_path / "good.safetensors").keys() == PAIR.keys()
    # A PEFT folder may be replaced by a newer one.
    for _ in range(2):
        convert_lora(tmp_path / "good.safetensors", tmp_path / "adapter", "peft")


def test_what_was_read_lets_go_of_the_file(tmp_path: Path) -> None:
    """Windows replaces no file that is still mapped, so a LoRA in use could not be trained anew under its name."""
    save_file(PAIR, tmp_path / "held open.safetensors")
    weights = load_lora(tmp_path / "held open.safetensors")
    gc.collect()
    assert weights
    assert "held open.safetensors" not in Path("/proc/self/maps").read_text(encoding="utf-8")


def test_an_unknown_format_is_refused_by_name_and_nothing_is_written(tmp_path: Path) -> None:
    save_file(PAIR, tmp_path / "good.safetensors")
    weights = load_lora(tmp_path / "good.safetensors")
    with pytest.raises(AtelierError, match=r"format 'ckpt' is not known.*kohya"):
        save_lora(tmp_path / "new.safetensors", weights, format="ckpt")
    assert [path.name for path in tmp_path.iterdir()] == ["good.safetensors"]


@pytest.mark.parametrize(("shape", "fits"), [((4, 1), True), ((4,), True), ((1, 6), True), ((6,), True), ((1, 3), True),
                                             ((3,), False), ((5, 1), False), ((1, 4), True), ((1, 12), False)])
def test_a_magnitude_belongs_to_outputs_or_inputs(shape: tuple[int, ...], fits: bool) -> None:
    """Of a convolution's inputs it has one for each channel, so fewer than a row has numbers."""
    state = {f"{STEM}.lokr_w1": torch.ones(2, 2), f"{STEM}.lokr_w2": torch.ones(2, 3),
             f"{STEM}.dora_scale": torch.ones(shape)}
    if fits:
        assert parse_lora(state, "a LoKr").weights
    else:
        with pytest.raises(AtelierError, match=f"dora_scale holds {max(shape)} numbers"):
            parse_lora(state, "a LoKr")


@pytest.mark.parametrize("format", ["diffusers", "peft"])
def test_formats_of_lora_alone_are_not_given_other_kinds(format: str, tmp_path: Path) -> None:
    weights = parse_lora({**PAIR, "lora_unet_conv_in.lokr_w1": torch.ones(2, 2),
                          "lora_unet_conv_in.lokr_w2": torch.ones(2, 2)}, "a.safetensors").weights
    with pytest.raises(AtelierError, match=rf"new would hold 1 of 2 layers of kinds \(LoKr 1\) that the {format} form"):
        save_lora(tmp_path / "new", weights, format=format)
    assert not list(tmp_path.iterdir())


def test_a_folder_is_no_name_for_a_file_and_a_files_name_none_for_a_folder(tmp_path: Path) -> None:
    weights = parse_lora(PAIR, "a.safetensors").weights
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(AtelierError, match=r"folder\.safetensors is a folder"):
        save_lora(tmp_path / "folder.safetensors", weights)
    for name in ("new.safetensors", "new.CKPT", "new.bin"):
        with pytest.raises(AtelierError, match=rf"{name} has the ending of a file, and PEFT's format is a folder"):
            save_lora(tmp_path / name, weights, format="peft")
    assert [path.name for path in tmp_path.rglob("*")] == ["folder.safetensors"]
    assert load_lora(save_lora(tmp_path / "v1.5", weights, format="peft"))


def test_what_the_disk_garbled_does_not_replace_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_lora(tmp_path / "fox.safetensors", parse_lora(PAIR, "a.safetensors").weights)
    before = path.read_bytes()
    written = lora_file._in_order
    monkeypatch.setattr(lora_file, "_in_order", lambda data: written(data)[:-1] + b"\x7f")
    with pytest.raises(AtelierError, match=r"fox\.safetensors did not read back as it was written"):
        save_lora(path, parse_lora(PAIR, "a.safetensors").weights)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["fox.safetensors"]


@pytest.mark.parametrize(("name", "message"), [
    ("gone.safetensors", r"gone\.safetensors does not exist"),
    ("cut.safetensors", r"cut\.safetensors is not a readable safetensors file \(.+\)"),
    ("empty", r"empty holds no adapter_config\.json"), ("half", r"text_encoder holds no adapter_config\.json")])
def test_what_is_missing_or_cut_short_is_named(name: str, message: str, tmp_path: Path) -> None:
    save_file(PAIR, tmp_path / "cut.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "cut.safetensors").read_bytes()[:-4])
    (tmp_path / "empty").mkdir()
    module = LoraModule(torch.ones(2, 4), torch.ones(4, 2), 2.0)
    half = save_lora(tmp_path / "half", {"unet.mid_block.attentions.0.proj_in": module,
                                         "text_encoder.text_model.encoder.layers.0.mlp.fc1": module}, format="peft")
    (half / "text_encoder" / "adapter_config.json").unlink()
    with pytest.raises(AtelierError, match=message):
        read_lora(tmp_path / name)


def test_how_a_lora_is_written_is_checked_before_the_work(tmp_path: Path) -> None:
    for values, said in (({"format": "ckpt"}, r"format 'ckpt' is not known.*kohya, diffusers, peft"),
                         ({"dtype": "fp64"}, r"type 'fp64' is not one.*fp32, fp16, bf16")):
        with pytest.raises(AtelierError, match=said):
            WrittenAs(**values)
    for format in ("kohya", "diffusers"):
        with pytest.raises(AtelierError, match=rf"a\.ckpt does not end in \.safetensors.*{format} format"):
            WrittenAs(format).check(tmp_path / "a.ckpt", [])
        WrittenAs(format).check(tmp_path / "a.SafeTensors", [])
    WrittenAs("peft").check(tmp_path / "a", [])


@pytest.mark.parametrize(("layer", "shape"), [("mid_block.attentions.0.proj_in", (4, 4)), ("gone", (4, 4)),
                                              ("proj", (4, 5)), ("proj", (5, 4)), ("proj.bias", (4, 1)),
                                              ("norm.bias.bias", (4, 1))])
def test_a_layer_that_a_model_lacks_is_named_and_nothing_is_merged(layer: str, shape: tuple[int, int]) -> None:
    model = nn.Linear(4, 4, bias=False)  # no layer must be taken for the whole
    model.proj = nn.Linear(4, 4, bias=False)
    before, whole = model.proj.weight.clone(), model.weight.clone()
    weights = {layer: LoraModule(torch.ones(2, shape[1]), torch.ones(shape[0], 2), 2.0)}
    with pytest.raises(AtelierError, match=rf"layer {layer} does not fit this model"):
        merge_into(model, weights)
    assert torch.equal(model.proj.weight, before) and torch.equal(model.weight, whole)
    assert merge_into(model, {"proj": LoraModule(torch.ones(2, 4), torch.ones(4, 2), 2.0)}) == 1
    torch.testing.assert_close(model.proj.weight, before + 2)


def test_an_ia3_of_a_convolutions_inputs_fits_it_and_no_other() -> None:
    stem = "lora_unet_mid_block_resnets_0_conv1"
    scales = torch.tensor([0.5, -1.0, 2.0])
    state = {f"{stem}.weight": scales, f"{stem}.on_input": torch.tensor(True)}
    adapter, = select(parse_lora(state, "a").weights, "unet").values()
    assert adapter.fits((8, 3, 3, 3)) and not adapter.fits((8, 27)) and not adapter.fits((3, 8, 3, 3))
    model = nn.Module()
    model.conv1 = nn.Conv2d(3, 8, 3)
    expected = model.conv1.weight.detach() * (1 + scales)[None, :, None, None]
    merge_into(model, {"conv1": adapter})
    torch.testing.assert_close(model.conv1.weight.detach(), expected)
    model.conv1 = nn.Conv2d(4, 8, 3)
    with pytest.raises(AtelierError, match="layer conv1 does not fit"):
        merge_into(model, {"conv1": adapter})
