"""LoRA files and folders that are refused, each by what is wrong with it."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from atelier.errors import AtelierError
from atelier.lora.convert import convert_lora
from atelier.lora.file import load_lora, read_lora, save_lora

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
