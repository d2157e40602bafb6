"""Prompts of programs that write JSON of their own, and what is said of those that are not read."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from kit.found_prompts import GRAPH, has, png
from PIL import Image

from atelier.errors import AtelierError
from atelier.generate import Picture
from atelier.pictures.metadata.read import find_prompt, read_prompt
from atelier.pictures.metadata.settings import Lora

SWARM = {"sui_image_params": {"prompt": "a boat", "negativeprompt": "fog", "model": "xl/base_1.0", "seed": 7,
                              "steps": 20, "cfgscale": 6.5, "width": 1024, "height": 768, "sampler": "dpmpp_2m",
                              "scheduler": "karras", "loras": ["ink/neon.safetensors", "rain"],
                              "loraweights": ["0.5", "-1"], "swarm_version": "0.9.6"},
         "sui_extra_data": {"date": "2026-01-02"},
         "sui_models": [{"name": "rain", "param": "loras", "hash": "0x1"},
                        {"name": "xl/base_1.0", "param": "model", "hash": "0x2"}]}
SWARM_READ: dict[str, Any] = {
    "program": "SwarmUI", "positive": "a boat", "negative": "fog", "model": "base_1.0", "model_hash": "0x2", "seed": 7,
    "steps": 20, "cfg": 6.5, "width": 1024, "height": 768, "sampler": "dpmpp_2m", "scheduler": "karras",
    "loras": (Lora("neon", 0.5), Lora("rain", -1.0))}
FOOOCUS = {"adm_guidance": "(1.5, 0.8, 0.3)", "base_model": "juggernaut", "base_model_hash": "ab",
           "full_prompt": ["cinematic still a boat", "a boat, calm"], "guidance_scale": 4.0,
           "lora_combined_1": "offset : 0.1", "loras": [["offset", 0.1, "cd"]], "metadata_scheme": "fooocus",
           "negative_prompt": "fog", "performance": "Speed", "prompt": "a boat", "resolution": "(1152, 896)",
           "sampler": "dpmpp_2m_sde_gpu", "scheduler": "karras", "seed": "18446744073709551615", "steps": 30,
           "styles": "['Fooocus V2']", "version": "Fooocus v2.5.0"}
FOOOCUS_READ: dict[str, Any] = {
    "program": "Fooocus", "positive": "a boat", "negative": "fog", "model": "juggernaut", "model_hash": "ab",
    "seed": 2**64 - 1, "steps": 30, "cfg": 4.0, "width": 1152, "height": 896, "sampler": "dpmpp_2m_sde_gpu",
    "scheduler": "karras", "loras": (Lora("offset", 0.1),)}
NOVELAI = {"prompt": "a boat", "steps": 28, "height": 1216, "width": 832, "scale": 5.5, "seed": 99,
           "sampler": "k_euler_ancestral", "noise_schedule": "karras", "uc": "fog"}
NOVELAI_READ: dict[str, Any] = {
    "program": "NovelAI", "positive": "a boat", "negative": "fog", "steps": 28, "width": 832, "height": 1216,
    "cfg": 5.5, "seed": 99, "sampler": "euler_ancestral", "scheduler": "karras"}


def exif_picture(path: Path, text: str, *, folder: int | None, tag: int = 0x9286) -> Path:
    exif = Image.Exif()
    (exif if folder is None else exif.get_ifd(folder))[tag] = text
    Image.new("RGB", (16, 8)).save(path, exif=exif)
    return path


def test_swarmui(tmp_path: Path) -> None:
    text = json.dumps(SWARM)
    has(read_prompt(png(tmp_path / "a.png", parameters=text)), **SWARM_READ)
    has(read_prompt(exif_picture(tmp_path / "b.jpg", text, folder=0x8769)), **SWARM_READ)
    has(read_prompt(exif_picture(tmp_path / "c.jpg", text, folder=None, tag=0x0110)), **SWARM_READ)
    older = {**SWARM["sui_image_params"], "loras": "neon, rain", "loraweights": "0.5"}
    has(find_prompt({"parameters": json.dumps({"sui_image_params": older})}),
        loras=(Lora("neon", 0.5), Lora("rain", 1.0)))


def test_fooocus_in_its_own_scheme(tmp_path: Path) -> None:
    text = json.dumps(FOOOCUS)
    found = read_prompt(png(tmp_path / "a.png", parameters=text, fooocus_scheme="fooocus"))
    has(found, **FOOOCUS_READ)
    assert found.left_out == {"positive": "the styles 'Fooocus V2' put more around it"}
    has(read_prompt(exif_picture(tmp_path / "b.webp", text, folder=None)), **FOOOCUS_READ)


def test_fooocus_in_the_web_ui_scheme() -> None:
    has(find_prompt({"parameters": "a boat\nNegative prompt: fog\nSteps: 30, Sampler: DPM++ 2M SDE Karras, Seed: 5, "
                                   'Size: 64x32, CFG scale: 4, Lora hashes: "offset: cd, ink: ef", '
                                   'Lora weights: "offset: 0.1, ink: 2", Version: Fooocus v2.5.0'}),
        program="Fooocus", positive="a boat", sampler="dpmpp_2m_sde", loras=(Lora("offset", 0.1), Lora("ink", 2.0)))


def test_novelai(tmp_path: Path) -> None:
    fields = {"Title": "NovelAI generated image", "Software": "NovelAI", "Source": "NovelAI Diffusion V4 1"}
    has(read_prompt(png(tmp_path / "a.png", **fields, Description="a boat", Comment=json.dumps(NOVELAI))),
        **NOVELAI_READ)
    first = {key: value for key, value in NOVELAI.items() if key != "prompt"}
    has(read_prompt(png(tmp_path / "b.png", **fields, Description="a boat", Comment=json.dumps(first))), **NOVELAI_READ)
    people = {"caption": {"base_caption": "a boat", "char_captions": [{"char_caption": "a sailor", "centers": []}]}}
    without = {"caption": {"base_caption": "fog", "char_captions": [{"char_caption": ""}]}}
    newer = NOVELAI | {"v4_prompt": people, "v4_negative_prompt": without, "uc": "?"}
    has(read_prompt(png(tmp_path / "c.png", **fields, Comment=json.dumps(newer))),
        **NOVELAI_READ | {"positive": "a boat\na sailor"})


def hidden(path: Path, mark: bytes, content: bytes, size: tuple[int, int] = (90, 70)) -> Path:
    """A picture with `content` in the lowest bits of its transparency, from top to bottom, then from left to right."""
    stored = mark + (8 * len(content)).to_bytes(4, "big") + content
    bits = "".join(f"{byte:08b}" for byte in stored)
    picture = Image.effect_noise(size, 50).convert("RGBA")
    alpha = Image.new("L", size, 255)
    for bit, (x, y) in zip(bits, ((x, y) for x in range(size[0]) for y in range(size[1])), strict=False):
        alpha.putpixel((x, y), 254 + int(bit))
    picture.putalpha(alpha)
    picture.save(path)
    return path


def test_text_in_the_transparency(tmp_path: Path) -> None:
    fields = json.dumps({"Software": "NovelAI", "Description": "a boat", "Comment": json.dumps(NOVELAI)}).encode()
    has(read_prompt(hidden(tmp_path / "a.png", b"stealth_pngcomp", gzip.compress(fields, mtime=0))), **NOVELAI_READ)
    web_ui = "ein Boot für 猫\nNegative prompt: fog\nSteps: 5, Seed: 1".encode()
    has(read_prompt(hidden(tmp_path / "b.png", b"stealth_pnginfo", web_ui)), positive="ein Boot für 猫", seed=1)


@pytest.mark.parametrize(("mark", "content"), [
    (b"stealth_pngcomp", b"not packed"), (b"stealth_pnginfo", b""), (b"stealth_pnginfx", b"a\nSteps: 5, Seed: 1"),
    (b"stealth_pngcomp", gzip.compress(b"x" * 1000, mtime=0)[:20])])
def test_a_damaged_hidden_text_is_none(tmp_path: Path, mark: bytes, content: bytes) -> None:
    with pytest.raises(AtelierError, match=r"a\.png holds no metadata"):
        read_prompt(hidden(tmp_path / "a.png", mark, content))
    with pytest.raises(AtelierError, match=r"b\.png holds no metadata"):
        read_prompt(hidden(tmp_path / "b.png", b"stealth_png", b"", (3, 3)))


def test_what_the_shell_draws(tmp_path: Path) -> None:
    settings = {"model": "base.safetensors", "model_fingerprint": "x", "negative": "fog", "width": 64, "height": 32,
                "steps": 5, "cfg": 3.5, "sampler": "ddim", "lora": "neon.safetensors", "strength": 0.5}
    path = Picture(Image.new("RGB", (64, 32)), "a boat, größer", 2**63, settings).save(tmp_path / "a.png")
    has(read_prompt(path), program="Atelier", positive="a boat, größer", negative="fog", seed=2**63, steps=5, cfg=3.5,
        sampler="ddim", width=64, height=32, model="base", loras=(Lora("neon", 0.5),))
    path = Picture(Image.new("RGB", (64, 32)), "a", 1, settings | {"lora": None, "strength": None}).save(path)
    has(read_prompt(path), loras=())


@pytest.mark.parametrize(("texts", "what"), [
    ({"workflow": json.dumps({"nodes": [], "links": []})}, "holds a workflow of ComfyUI's editor, but not the graph"),
    ({"prompt": json.dumps({"8": GRAPH["8"]})}, "holds a ComfyUI graph without a sampler whose inputs are known"),
    ({"XML:com.adobe.xmp": "<xmp:CreatorTool>Draw Things</xmp:CreatorTool>"}, "was made with Draw Things"),
    ({"use_stable_diffusion_model": "sd-v1-5", "prompt": "a boat"}, "was made with Easy Diffusion"),
    ({"Software": "gimp"}, "holds metadata, but no prompt that can be read"), ({}, "holds no metadata")])
def test_what_is_not_read_is_said(tmp_path: Path, texts: dict[str, str], what: str) -> None:
    with pytest.raises(AtelierError, match=f"a.png {what}") as error:
        read_prompt(png(tmp_path / "a.png", **texts))
    assert ("original file" in str(error.value)) == (not texts), "advice that would not help"


@pytest.mark.parametrize("wrong", [None, 3, "x", [], [3], {}, {"caption": 3}, [[]], [["a"]], [{"x": 1}]])
def test_forms_with_anything_in_a_field_are_survived(wrong: Any) -> None:
    for form in (SWARM["sui_image_params"], FOOOCUS, NOVELAI | {"v4_prompt": {}}):
        for key in form:
            changed = form | {key: wrong}
            for whole in (changed, {"sui_image_params": changed, "sui_models": wrong}):
                find_prompt({"parameters": json.dumps(whole), "Comment": json.dumps(whole), "Software": "NovelAI"})
