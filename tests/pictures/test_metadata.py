"""Prompts read from pictures that are made here by the rules of each program's format, whole and broken."""

from __future__ import annotations

import json
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.found_prompts import A1111, BASE, GRAPH, READ, has, node, png
from PIL import Image

from atelier.errors import AtelierError
from atelier.pictures.decode import UnreadablePicture
from atelier.pictures.metadata.infotext import parse_infotext, read_pairs, take_loras
from atelier.pictures.metadata.infotext_file import quoted
from atelier.pictures.metadata.read import find_prompt, pixel_size, read_prompt, user_comment
from atelier.pictures.metadata.settings import Lora, best_match, number, whole


@pytest.mark.parametrize(("value", "written"), [
    ("Euler a", "Euler a"), ("7", "7"), (" a", '" a"'), ("a\t", '"a\\t"'), ("a, b", '"a, b"'), ("a: b", '"a: b"'),
    ('say "a"', '"say \\"a\\""'), ("[a", '"[a"'), ("{a", '"{a"'), ("a]", "a]"), ("", "")])
def test_a_value_is_packed_only_where_it_would_be_read_otherwise(value: str, written: str) -> None:
    """As AUTOMATIC1111 writes it."""
    assert quoted(value) == written
    assert read_pairs(f"Steps: 3, Model: {written}, Seed: 1")["Model"] == value


def with_exif(path: Path, *, comment: bytes | None = None, tags: dict[int, str] | None = None) -> Path:
    exif = Image.Exif()
    for tag, text in (tags or {}).items():
        exif[tag] = text
    if comment is not None:
        exif.get_ifd(0x8769)[0x9286] = comment
    Image.new("RGB", (16, 8)).save(path, exif=exif)
    return path


# AUTOMATIC1111, Forge, CivitAI ----------------------------------------------------------------------------------------

def test_a1111_in_a_png(tmp_path: Path) -> None:
    has(read_prompt(png(tmp_path / "bild ü.png", parameters=A1111)), **BASE)


@pytest.mark.parametrize("ending", ["jpg", "webp"])
@pytest.mark.parametrize("code", ["utf-16-be", "utf-16-le", "utf-8", "ascii"])
def test_a1111_in_exif(tmp_path: Path, ending: str, code: str) -> None:
    marks = {"ascii": b"ASCII\0\0\0"}
    path = with_exif(tmp_path / f"a.{ending}", comment=marks.get(code, b"UNICODE\0") + A1111.encode(code))
    has(read_prompt(path), **BASE)


def test_letters_beyond_ascii_survive_in_exif(tmp_path: Path) -> None:
    text = "猫 と 犬, größe\nNegative prompt: 悪い\nSteps: 5, Seed: 1"
    for code in ("utf-16-be", "utf-16-le"):
        found = read_prompt(with_exif(tmp_path / "a.webp", comment=b"UNICODE\0" + text.encode(code)))
        has(found, positive="猫 と 犬, größe", negative="悪い", steps=5)


def test_newer_a1111_and_forge_name_the_schedule_apart() -> None:
    has(parse_infotext("a\nSteps: 20, Sampler: Euler a, Schedule type: SGM Uniform, CFG scale: 1, Seed: 3"),
        sampler="euler_ancestral", scheduler="sgm_uniform", program="A1111")
    has(parse_infotext("a\nSteps: 20, Sampler: Euler, Schedule type: Simple, CFG scale: 1, Distilled CFG Scale: 3.5, "
                       "Seed: 3, Size: 896x1152, Model: flux1-dev, Version: f2.0.1v1.10.1-previous-659-gc055f2d4"),
        sampler="euler", scheduler="simple", program="Forge", cfg=1.0, model="flux1-dev")


@pytest.mark.parametrize(("label", "names"), [
    ("DPM++ 2M SDE Karras", ("dpmpp_2m_sde", "karras")), ("DDIM", ("ddim", "")), ("UniPC", ("uni_pc", "")),
    ("DPM++ 2S a", ("dpmpp_2s_ancestral", "")), ("LMS Karras", ("lms", "karras")), ("Restart", ("Restart", "")),
    ("DPM++ 2M karras", ("dpmpp_2m", "karras")), ("dpmpp_2m_karras", ("dpmpp_2m", "karras")), ("PLMS", ("ipndm", "")),
    ("dpmpp_2m_sde_sgm_uniform", ("dpmpp_2m_sde", "sgm_uniform")), ("Euler_Ancestral", ("euler_ancestral", ""))])
def test_sampler_labels(label: str, names: tuple[str, str]) -> None:
    found = parse_infotext(f"a\nSteps: 20, Sampler: {label}, Seed: 3")
    assert (found.sampler, found.scheduler) == names


def test_civitai_names_its_resources_in_json() -> None:
    resources = [{"type": "checkpoint", "modelVersionId": 128713, "modelName": "DreamShaper, 8"},
                 {"type": "lora", "weight": 0.6, "modelVersionId": 1, "modelName": "Detail: more"}]
    found = parse_infotext(f"a cat\nNegative prompt: bad\nSteps: 25, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 4, "
                           f"Size: 832x1216, Clip skip: 2, Civitai resources: {json.dumps(resources)}, "
                           "Civitai metadata: {}")
    has(found, program="CivitAI", model="DreamShaper, 8", loras=(Lora("Detail: more", 0.6),), width=832, cfg=7.0)


def test_civitai_generator_writes_a_graph_and_a_summary(tmp_path: Path) -> None:
    summary = {"prompt": "a fox", "negativePrompt": "bad", "steps": 25, "cfgScale": 3.5, "sampler": "Euler a",
               "seed": 9}
    value = {"6": {"class_type": "smZ CLIPTextEncode", "inputs": {"text": "other"}}, "extra": {"airs": []},
             "extraMetadata": json.dumps(summary)}
    path = with_exif(tmp_path / "a.jpg", comment=b"UNICODE\0" + json.dumps(value).encode("utf-16-be"))
    has(read_prompt(path), program="CivitAI", positive="a fox", negative="bad", sampler="euler_ancestral", cfg=3.5,
        seed=9)


def test_pairs_keep_quotes_colons_and_commas() -> None:
    assert read_pairs('Steps: 5, TI hashes: "a, b: \\"c\\"", RNG: CPU') == {
        "Steps": "5", "TI hashes": 'a, b: "c"', "RNG": "CPU"}


def test_the_settings_need_not_be_the_last_line_nor_there() -> None:
    has(parse_infotext("a\nSteps: 5, Seed: 1\nTemplate: {a|b}"), positive="a", steps=5)
    has(parse_infotext("a cat\nNegative prompt: dog"), positive="a cat", negative="dog", steps=None)
    has(parse_infotext("a sign, Negative prompt: no\nNegative prompt: dog\nSteps: 5, Seed: 1"), negative="dog",
        positive="a sign, Negative prompt: no")
    has(parse_infotext("Steps: 5, Seed: 1"), positive="", steps=5)
    has(parse_infotext("Negative prompt: dog\nSteps: 5, Seed: 1"), positive="", negative="dog")


@pytest.mark.parametrize(("line", "more"), [
    ("Steps: 20, 模型: abc, Seed: 5, Size: 512x512", {"模型": "abc"}),
    ("Steps: 20, 2nd pass: x, Seed: 5, Size: 512x512", {"2nd pass": "x"}),
    ("Steps: 20, Model (hash): a, Seed: 5, Size: 512x512", {"Model (hash)": "a"}),
    ("Steps: 20, Model: a, b, Seed: 5, Size: 512x512", {"Model": "a"}),
    ("Steps: 20, , Seed: 5, Size: 512x512", {}),
    ('Steps: 20, Lora hashes: "cut: 1, Seed: 5, Size: 512x512', {"Lora hashes": '"cut: 1'})])
def test_a_pair_that_is_odd_does_not_end_the_others(line: str, more: dict[str, str]) -> None:
    assert read_pairs(line) == {"Steps": "20", "Seed": "5", "Size": "512x512", **more}
    has(parse_infotext("a\n" + line), positive="a", steps=20, seed=5, width=512)


def test_settings_begin_with_a_setting_where_any_line_does() -> None:
    has(parse_infotext("a\nSteps: 20, Seed: 5\nTemplate: a man, 8k, Steps: 1"), positive="a", steps=20, seed=5)


@pytest.mark.parametrize(("written", "plain", "strength"), [
    ("<lora:x: 0.8> cat", "cat", 0.8), ("a <lora:x:0.5 >", "a", 0.5), ("<lora:x:+0.5> a", "a", 0.5),
    ("<lora:x:-.5> a", "a", -0.5), ("<lora:x> a", "a", 1.0), ("<lora:x:1:lbw=ALL> a", "a", 1.0),
    ("<lora:x:0.2:0.7> a", "a", 0.7), ("<lora:x:0.2:0.7:8> a", "a", 0.7), ("<lora:x:te=0.5> a", "a", 0.5),
    ("<lora:x:te=0.5:unet=0> a", "a", 0.0), ("<lora:x:0.2: unet = 0.9> a", "a", 0.9),
    ("<lora:x:0.2:te=0.4> a", "a", 0.4), ("<lora:x:high:0.7> a", "a", 0.7), ("<lora:x:high> a", "a", 1.0),
    ("<lora:x:> a", "a", 1.0),
    ("<lora:x:1>, a cat", "a cat", 1.0), ("a, <lora:x:1>, blue", "a, blue", 1.0), ("a, <lora:x:1>", "a", 1.0),
    ("a cat <lora:x:1> in snow", "a cat in snow", 1.0), ("a <lora:x:1>, b", "a, b", 1.0),
    ("a,, b, <lora:x:1>", "a,, b", 1.0),
    ("a,\n<lora:x:1>\nb", "a,\nb", 1.0), ("a, <lora:x:1>\nb", "a,\nb", 1.0), ("<lora:x:1>,\nb", "b", 1.0)])
def test_a_lora_leaves_the_prompt_whole(written: str, plain: str, strength: float) -> None:
    assert take_loras(written) == (plain, (Lora("x", strength),))


def test_several_loras_leave_no_commas() -> None:
    assert take_loras("<lora:a:1>, <lyco:b, c:2> <lora:d:3>, a cat,")[0] == "a cat"


def test_line_ends_and_blanks_of_any_editor() -> None:
    for text in ("a cat\rNegative prompt: bad\rSteps: 5, Seed: 1",
                 "a cat\r\n Negative prompt: bad\r\nSteps: 5, Seed: 1",
                 "\ufeffa cat\n\tNegative prompt: bad\nSteps: 5, Seed: 1"):
        has(find_prompt({"parameters": text}), positive="a cat", negative="bad", steps=5, seed=1)


@pytest.mark.parametrize("mark", [BOM_UTF16_BE, BOM_UTF16_LE])
def test_a_byte_order_mark_decides_and_goes(mark: bytes) -> None:
    # Without an ASCII character to guess by.
    code = "utf-16-be" if mark == BOM_UTF16_BE else "utf-16-le"
    assert user_comment(b"UNICODE\0" + mark + "一只猫在屋顶".encode(code)) == "一只猫在屋顶"
    assert user_comment(b"UNICODE\0" + "\ufeffa".encode()) == user_comment("\ufeffa") == "a"


# InvokeAI -------------------------------------------------------------------------------------------------------------

def test_invoke_3_and_later(tmp_path: Path) -> None:
    value = {"app_version": "5.4.2", "generation_mode": "sdxl_txt2img", "positive_prompt": "a cat", "seed": 7,
             "negative_prompt": "dog", "width": 1024, "height": 768, "cfg_scale": 5.5, "steps": 30,
             "scheduler": "dpmpp_2m_k",
             "model": {"key": "x", "hash": "blake3:ab", "name": "Juggernaut XL v9", "base": "sdxl"},
             "loras": [{"model": {"name": "pixel"}, "weight": 0.4}, {"lora": {"model_name": "old"}, "weight": 0}]}
    brought = {**value, "positive_prompt": "a cat <lora:ink:0.5>", "loras": []}
    has(read_prompt(png(tmp_path / "b.png", invokeai_metadata=json.dumps(brought))), positive="a cat",
        loras=(Lora("ink", 0.5),))
    has(read_prompt(png(tmp_path / "a.png", invokeai_metadata=json.dumps(value))), program="InvokeAI", positive="a cat",
        negative="dog", width=1024, height=768, cfg=5.5, steps=30, sampler="dpmpp_2m", scheduler="karras", seed=7,
        model="Juggernaut XL v9", model_hash="blake3:ab", loras=(Lora("pixel", 0.4), Lora("old", 0.0)))


def test_invoke_2(tmp_path: Path) -> None:
    value = {"model": "stable diffusion", "model_weights": "sd-1.5", "model_hash": "cc6cb", "image": {
        "prompt": [{"prompt": "a cat [dog, blurry] in snow", "weight": 1}], "steps": 50, "cfg_scale": 7.5, "width": 512,
        "height": 640, "seed": 12, "sampler": "k_euler_a"}}
    has(read_prompt(png(tmp_path / "a.png", sd_metadata=json.dumps(value))), positive="a cat in snow", steps=50,
        negative="dog, blurry", sampler="euler_ancestral", scheduler="normal", model="sd-1.5", seed=12)


# ComfyUI --------------------------------------------------------------------------------------------------------------

def test_comfyui_png_and_webp(tmp_path: Path) -> None:
    has(read_prompt(png(tmp_path / "a.png", prompt=json.dumps(GRAPH), workflow="{}")), **READ)
    tags = {0x0110: "prompt:" + json.dumps(GRAPH), 0x010F: "workflow:{}"}
    has(read_prompt(with_exif(tmp_path / "a.webp", tags=tags)), **READ)


def test_the_first_of_two_passes_counts() -> None:
    second = {"20": node("LatentUpscale", samples=["3", 0], width=1024, height=1280),
              "1": node("KSampler", seed=1, steps=8, cfg=3, sampler_name="lcm", scheduler="simple", denoise=0.4,
                        model=["11", 0], positive=["6", 0], negative=["7", 0], latent_image=["20", 0])}
    for graph in (GRAPH | second, second | GRAPH):
        has(find_prompt({"prompt": json.dumps(graph)}), **READ)


def test_controlnet_keeps_the_sides_apart() -> None:
    graph = {**GRAPH, "30": node("ControlNetApplyAdvanced", positive=["6", 0], negative=["7", 0], strength=1)}
    graph["3"] = {**GRAPH["3"], "inputs": {**GRAPH["3"]["inputs"], "positive": ["30", 0], "negative": ["30", 1]}}
    has(find_prompt({"prompt": json.dumps(graph)}), **READ)


def test_the_custom_sampler() -> None:
    graph = {**{key: GRAPH[key] for key in ("4", "10", "11", "5", "6", "7", "12", "13")},
             "a": node("SamplerCustomAdvanced", noise=["b", 0], guider=["c", 0], sampler=["d", 0], sigmas=["e", 0],
                       latent_image=["5", 0]),
             "b": node("RandomNoise", noise_seed=99), "d": node("KSamplerSelect", sampler_name="dpmpp_2m"),
             "c": node("CFGGuider", model=["11", 0], positive=["6", 0], negative=["7", 0], cfg=8),
             "e": node("BasicScheduler", model=["11", 0], scheduler="karras", steps=20, denoise=1)}
    has(find_prompt({"prompt": json.dumps(graph)}), **READ)


def test_split_noise_levels_are_those_of_their_schedule() -> None:
    graph = {**{key: GRAPH[key] for key in ("4", "10", "11", "5", "6", "7", "12", "13")},
             "a": node("SamplerCustom", noise_seed=99, cfg=8, positive=["6", 0], negative=["7", 0], model=["11", 0],
                       sampler=["d", 0], sigmas=["s", 1], latent_image=["5", 0]),
             "d": node("KSamplerSelect", sampler_name="dpmpp_2m"), "s": node("SplitSigmas", sigmas=["x", 0], step=3),
             "x": node("ExtendIntermediateSigmas", sigmas=["e", 0], steps=2),
             "e": node("BasicScheduler", model=["11", 0], scheduler="karras", steps=20, denoise=1)}
    has(find_prompt({"prompt": json.dumps(graph)}), **READ)


def test_a_negative_that_is_zeroed_out_is_empty() -> None:
    graph = {**GRAPH, "7": node("ConditioningZeroOut", conditioning=["6", 0])}
    has(find_prompt({"prompt": json.dumps(graph)}), **READ | {"negative": ""})
    mixed = graph | {"8": node("ConditioningCombine", conditioning_1=["7", 0], conditioning_2=["9", 0]),
                     "9": node("CLIPTextEncode", text="blurry")}
    mixed["3"] = {**GRAPH["3"], "inputs": {**GRAPH["3"]["inputs"], "negative": ["8", 0]}}
    has(find_prompt({"prompt": json.dumps(mixed)}), **READ)


def test_merged_models_and_loaders_of_several_loras() -> None:
    graph = {**GRAPH, "4": node("CheckpointLoaderSimple", ckpt_name="first.safetensors"),
             "m": node("ModelMergeSimple", model2=["other", 0], model1=["4", 0], ratio=0.5),
             "other": node("CheckpointLoaderSimple", ckpt_name="second.safetensors"),
             "10": node("Power Lora Loader (rgthree)", PowerLoraLoaderHeaderWidget={"type": "x"}, model=["m", 0],
                        lora_1={"on": True, "lora": "x/one.safetensors", "strength": 0.8, "strengthTwo": None},
                        lora_2={"on": False, "lora": "off.safetensors", "strength": 1},
                        lora_3={"on": True, "lora": "three.safetensors", "strength": -1}),
             "11": node("Lora Loader Stack (rgthree)", model=["10", 0], lora_01="four.safetensors", strength_01=0.5,
                        lora_02="None", strength_02=1)}
    has(find_prompt({"prompt": json.dumps(graph)}), model="first",
        loras=(Lora("one", 0.8), Lora("three", -1.0), Lora("four", 0.5)))


def test_our_own_graph_is_read() -> None:
    path = Path(__file__).parents[2] / "workflows" / "api" / "finetune_then_generate.json"
    has(find_prompt({"prompt": path.read_text(encoding="utf-8")}), seed=7, steps=25, width=512,
        positive="a photo of ohwx on a beach at sunset, detailed", negative="low quality, blurry, deformed",
        model="v1-5-pruned-emaonly-fp16")


# Broken ---------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("texts", [
    {"prompt": json.dumps(GRAPH)[:-30]}, {"prompt": "[1, 2]"}, {"prompt": "{" * 100_000}, {"prompt": "[" * 100_000},
    {"prompt": '{"1": {"inputs": {}}}'}, {"invokeai_metadata": "null"}, {"invokeai_metadata": "{}"},
    {"sd_metadata": '{"image": 3}'}, {"parameters": ""}, {"parameters": "just a caption"}, {"Software": "x"}, {}])
def test_nothing_to_read_is_said_with_the_name(tmp_path: Path, texts: dict[str, str]) -> None:
    with pytest.raises(AtelierError, match=r"broken\.png holds"):
        read_prompt(png(tmp_path / "broken.png", **texts))


def test_a_graph_that_bites_its_tail_and_lacks_nodes() -> None:
    graph = {"1": node("KSampler", seed=5, steps="many", cfg=None, sampler_name=3, scheduler=["gone", 0],
                       model=["1", 0], positive=["2", 0], negative=["gone", 1], latent_image=["2", 0]),
             "2": node("Loop", text=["2", 0], conditioning=["2", 0]), "3": "no node", "4": {"inputs": []}}
    graph["1"]["inputs"]["latent_image"] = ["gone", 0]
    has(find_prompt({"prompt": json.dumps(graph)}), positive="", seed=5, steps=None, cfg=None, sampler="", scheduler="")


def test_a_broken_field_does_not_hide_a_good_one(tmp_path: Path) -> None:
    found = read_prompt(png(tmp_path / "a.png", parameters="\0\0", prompt=json.dumps(GRAPH)))
    has(found, **READ)
    odd = 'a\nSteps: many, Sampler: , CFG scale: nan, Seed: -1, Size: bigxsmall, Civitai resources: [{"type": "lora"'
    has(parse_infotext(odd + "\nSteps: 4, Seed: 2"), steps=4, seed=2)
    has(parse_infotext(odd), steps=None, cfg=None, seed=None, width=None, positive="a")


def places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield way
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield from places(inner, (*way, key))


def changed(value: Any, way: tuple[Any, ...], new: Any) -> Any:
    if not way:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[way[0]] = changed(value[way[0]], way[1:], new)
    return copy


WRONG = [None, True, -1, 1.5, float("nan"), 10**30, "", "x", "4", [], ["6"], ["6", []], ["6", {}], [[], 0], [{}, 0],
         [None, 0], ["3", 0], ["6", 0, 1], {}, {"on": 1, "lora": []}]


@pytest.mark.parametrize("wrong", WRONG, ids=json.dumps)
def test_a_graph_with_something_wrong_at_any_place_is_survived(wrong: Any) -> None:
    custom = {"a": node("SamplerCustomAdvanced", noise=["b", 0], guider=["c", 0], sampler=["d", 0], sigmas=["s", 0],
                        latent_image=["5", 0]),
              "c": node("CFGGuider", model=["p", 0], positive=["6", 0], negative=["z", 0], cfg=8),
              "p": node("Power Lora Loader (rgthree)", model=["11", 0],
                        lora_1={"on": True, "lora": "x", "strength": 1}),
              "s": node("SplitSigmas", sigmas=["e", 0], step=1), "e": node("BasicScheduler", steps=20, scheduler="x"),
              "z": node("ConditioningZeroOut", conditioning=["7", 0])}
    for graph in (GRAPH, {key: value for key, value in (GRAPH | custom).items() if key != "3"}):
        for way in places(graph):
            found = find_prompt({"prompt": json.dumps(changed(graph, way, wrong)), "Comment": A1111})
            assert found is not None and found.positive, "what is good is found, in this field or the next"


def test_links_without_end_take_no_time() -> None:
    # Every node says what the next one says, twelve times over or twice in a row: 12^30 ways, and 2^30 texts.
    names = ("text", "text_g", "text_l", "clip_l", "clip_g", "t5xxl", "prompt", "value", "string", "wildcard_text")
    wide = {f"w{i}": node("x", **{name: [f"w{i + 1}", 0] for name in names}) for i in range(30)}
    doubled = {f"d{i}": node("x", string_a=[f"d{i + 1}", 0], string_b=[f"d{i + 1}", 0]) for i in range(18)}
    doubled["d18"] = node("x", value="y" * 90_000)
    for start in ("w0", "d0"):
        graph = {**GRAPH, **wide, **doubled, "6": node("CLIPTextEncode", text=[start, 0])}
        found = find_prompt({"prompt": json.dumps(graph)})
        assert found is not None and len(found.positive) <= 100_000


def test_settings_alone_give_way_to_a_prompt() -> None:
    alone = json.dumps({"3": node("KSampler", seed=5, positive=["gone", 0], negative=["gone", 0])})
    has(find_prompt({"prompt": alone}), seed=5, positive="")
    has(find_prompt({"prompt": alone, "Comment": A1111}), **BASE)


@pytest.mark.parametrize("ending", ["jpg", "gif"])
def test_the_comment_of_a_file_without_exif_is_read(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{ending}"
    Image.new("RGB", (16, 8)).save(path, comment=A1111.encode())
    has(read_prompt(path), **BASE)
    assert pixel_size(path) == (16, 8)


@pytest.mark.parametrize("value", [10**400, -10**400, "1e999", float("nan"), float("inf"), True, [1], {"a": 1}, "x"])
def test_a_number_that_no_setting_can_be_is_none(value: Any) -> None:
    assert number(value) is None
    assert whole(value) is None or abs(value) == 10**400
    assert whole(value, 1000) is None


def test_a_file_that_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(tmp_path / "b.png", parameters=A1111).read_bytes()[:60])
    for name in ("a.png", "none.png"):
        with pytest.raises(UnreadablePicture, match=name):
            read_prompt(tmp_path / name)
    (tmp_path / "c.png").write_bytes(b"no picture")
    with pytest.raises(UnreadablePicture, match=r"c\.png"):
        pixel_size(tmp_path / "c.png")


@given(st.text(max_size=300))
def test_any_text_is_survived(written: str) -> None:
    parse_infotext(written)
    parse_infotext(f"{written}\nSteps: 5, {written}")


_JSON = st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
                     lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                         st.sampled_from(["inputs", "positive", "negative", "seed", "image", "prompt", "model", "loras",
                                          "guider", "sigmas", "text", "1", "2"]), inner, max_size=4), max_leaves=20)


@given(_JSON)
def test_any_json_is_survived(value: Any) -> None:
    for keyword in ("prompt", "invokeai_metadata", "sd-metadata", "UserComment"):
        find_prompt({keyword: json.dumps(value)})


@given(st.binary(max_size=60))
def test_any_comment_is_survived(value: bytes) -> None:
    user_comment(value)
    user_comment(b"UNICODE\0" + value)


# Names on this machine ------------------------------------------------------------------------------------------------

def test_models_are_found_by_name_whatever_the_folder() -> None:
    files = ["a/Dream Shaper.safetensors", "neon.safetensors", "b/neon.ckpt"]
    assert best_match("dream shaper", files) == files[0]
    assert best_match("b\\neon.ckpt", files) == files[2]
    assert best_match("neon", files) == files[1]
    assert best_match("other", files) is best_match("", files) is None
