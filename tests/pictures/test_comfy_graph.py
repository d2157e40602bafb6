"""Prompts and settings read from graphs with nodes of many packs, as those nodes hand values on, by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest
from kit.found_prompts import EMPTY, GRAPH, READ, graph, has, node, read, said, sampler

from atelier.pictures.metadata.comfy_graph import parse_graph
from atelier.pictures.metadata.settings import Lora

# Loaders with both prompts --------------------------------------------------------------------------------------------

def test_an_efficient_loader_keeps_its_sides_strength_and_size() -> None:
    loader = node("Efficient Loader", ckpt_name="sd/base.safetensors", lora_name="ink.safetensors",
                  lora_model_strength=0.6, lora_clip_strength=1, positive="a boat", negative="fog",
                  empty_latent_width=768, empty_latent_height=512, batch_size=1, lora_stack=["k", 0])
    stack = node("LoRA Stacker", input_mode="simple", lora_count=2, lora_name_1="one.safetensors", lora_wt_1=0.5,
                 model_str_1=3, lora_name_2="None", lora_wt_2=1, lora_name_3="beyond the count", lora_wt_3=1)
    nodes = {"l": loader, "k": stack,
             "s": node("KSampler (Efficient)", seed=99, steps=20, cfg=8, sampler_name="euler", scheduler="karras",
                       model=["l", 0], positive=["l", 1], negative=["l", 2], latent_image=["l", 3])}
    found = read(nodes)
    has(found, positive="a boat", negative="fog", width=768, height=512, model="base", seed=99,
        loras=(Lora("one", 0.5), Lora("ink", 0.6)), left_out={})
    stack["inputs"]["input_mode"] = "advanced"
    has(read(nodes), loras=(Lora("one", 3.0), Lora("ink", 0.6)))


def test_a_loader_that_nobody_knows_is_asked_for_the_side_that_is_wanted() -> None:
    nodes = {"l": node("Some Loader", ckpt_name="x", positive="a boat", negative="fog")}
    has(read(graph(nodes, positive=["l", 1], negative=["l", 2])), positive="a boat", negative="fog")
    pair = {"l": node("Two Prompts", positive="a boat", negative="fog"),
            "p": node("CLIPTextEncode", text=["l", 0]), "n": node("CLIPTextEncode", text=["l", 1])}
    has(read(graph(pair)), positive="a boat", negative="fog")


def test_crossed_wires_of_a_known_node_are_followed() -> None:
    nodes = {"c": node("ControlNetApplyAdvanced", positive=["p", 0], negative=["n", 0])}
    has(read(graph(nodes, positive=["c", 1], negative=["c", 0])), positive="fog", negative="a boat")


def test_the_sdxl_sampler_gets_its_prompts_through_a_tuple() -> None:
    found = read({"l": node("Eff. Loader SDXL", base_ckpt_name="xl.safetensors", positive="a boat", negative="fog",
                            empty_latent_width=1024, empty_latent_height=768),
                  "s": node("KSampler SDXL (Eff.)", noise_seed=5, steps=30, cfg=6, sampler_name="euler",
                            scheduler="normal", sdxl_tuple=["l", 0], latent_image=["l", 1])})
    has(found, positive="a boat", negative="fog", model="xl", seed=5, width=1024, height=768)


# What refines a picture -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", ["FaceDetailer", "UltimateSDUpscale", "DetailerForEach"])
def test_a_node_that_refines_the_picture_does_not_count_whatever_its_id(kind: str) -> None:
    face = node(kind, image=["v", 0], model=["m", 0], positive=["q", 0], negative=["n", 0], seed=1, steps=5, cfg=3,
                sampler_name="lcm", scheduler="simple")
    later = {"0": face, "q": node("CLIPTextEncode", text="a face"), "w": node("SaveImage", images=["0", 0])}
    for nodes in ({**later, **graph(later)}, {**graph(), **later}):
        has(read(nodes), positive="a boat", seed=99, steps=20, cfg=8.0, left_out={})


def test_samplers_beside_each_other_give_what_they_agree_on() -> None:
    other = {"t": sampler(seed=7, positive=["q", 0]), "q": node("CLIPTextEncode", text="a car"),
             "x": node("PreviewImage", images=["t", 0])}
    has(read({**other, **graph()}), positive="a boat", seed=99, left_out={})
    saved = read({**other, **graph(), "x": node("SaveImage", images=["t", 0])})
    has(saved, positive="", negative="fog", seed=None, steps=20, model="base")
    assert set(saved.left_out) == {"positive", "seed"}
    for saver, prompt, seed in (("w", "a boat", 99), ("x", "a car", 7)):
        one = parse_graph({**other, **graph(), "x": node("SaveImage", images=["t", 0])}, saver)
        has(one, positive=prompt, seed=seed, left_out={})
    crowd = {f"t{i}": sampler(seed=i) for i in range(30)}
    saving = {f"w{i}": node("SaveImage", images=[f"t{i}", 0]) for i in range(30)}
    has(read({**crowd, **graph(), **saving}), positive="", left_out=dict.fromkeys(
        ("positive", "negative", "seed"), "the graph has more than 20 samplers"))


# Wildcards ------------------------------------------------------------------------------------------------------------

def test_what_a_wildcard_became_is_the_prompt() -> None:
    encode = node("ImpactWildcardEncode", wildcard_text="a {boat|car}", populated_text="a boat <lora:ink:0.5>",
                  mode="populate", model=["m", 0], seed=3)
    has(read(graph({"p": encode}, positive=["p", 2])), positive="a boat", loras=(Lora("ink", 0.5),))
    text = node("ImpactWildcardProcessor", wildcard_text="a {boat|car}", populated_text="a car")
    assert said(["t", 0], {"t": text}) == "a car"
    assert said(["t", 0], {"t": node("Another", wildcard_text="a {boat|car}", populated_text="a car")}) == "a car"
    assert said(["t", 0], {"t": node("ImpactWildcardProcessor", wildcard_text="{a|b}", populated_text="")}) == ""


# Numbers --------------------------------------------------------------------------------------------------------------

def test_numbers_are_not_taken_from_a_seed() -> None:
    nodes = {"r": node("Seed (rgthree)", seed=1125899906842624)}
    found = read(graph(nodes, seed=["r", 0], steps=["r", 0], cfg=["r", 0]))
    has(found, seed=1125899906842624, steps=None, cfg=None)
    assert found.left_out == dict.fromkeys(("steps", "cfg"), "it comes from Seed (rgthree), which is not known")


def test_numbers_come_from_nodes_that_hold_one() -> None:
    nodes = {"a": node("PrimitiveInt", value=12), "b": node("Reroute", **{"": ["a", 0]}),
             "c": node("KSampler Config (rgthree)", steps_total=9, refiner_step=4, cfg=2.5, sampler_name="lcm",
                       scheduler="simple"), "d": node("SeedNode", seed=5), "e2": node("Math", a=["a", 0], b=3)}
    has(read(graph(nodes, steps=["b", 0], cfg=["c", 2], sampler_name=["c", 3], scheduler=["c", 4], seed=["d", 0])),
        steps=12, cfg=2.5, sampler="lcm", scheduler="simple", seed=5, left_out={})
    has(read(graph(nodes, steps=["c", 0])), steps=9)
    has(read(graph(nodes, steps=["e2", 0])), steps=None,
        left_out={"steps": "it comes from Math, which is not known"})


# Switches and pipes ---------------------------------------------------------------------------------------------------

SWITCHES = {
    "rgthree": node("Any Switch (rgthree)", any_02=["A", 0], any_03=["B", 0]),
    "impact": node("ImpactSwitch", select=2, sel_mode=True, input1=["B", 0], input2=["A", 0]),
    "impact, linked": node("ImpactSwitch", select=["two", 0], input1=["B", 0], input2=["A", 0]),
    "core": node("ComfySwitchNode", switch=True, on_false=["B", 0], on_true=["A", 0]),
    "core, false": node("ComfySwitchNode", switch=["no", 0], on_false=["A", 0], on_true=["B", 0]),
    "easy": node("easy anythingIndexSwitch", index=1, value0=["B", 0], value1=["A", 0]),
    "reroute": node("Reroute", **{"": ["A", 0]}),
}
FIXED = {"two": node("PrimitiveInt", value=2), "no": node("PrimitiveBoolean", value=False)}


@pytest.mark.parametrize("switch", SWITCHES.values(), ids=list(SWITCHES))
def test_switches_hand_on_prompt_text_model_and_lora(switch: dict[str, Any]) -> None:
    prompts = {**FIXED, "x": switch, "A": node("CLIPTextEncode", text="a boat"),
               "B": node("CLIPTextEncode", text="a car")}
    has(read(graph(prompts, positive=["x", 0])), positive="a boat", left_out={})
    texts = {**FIXED, "x": switch, "A": node("PrimitiveString", value="a boat"),
             "B": node("PrimitiveString", value="a car")}
    assert said(["x", 0], texts) == "a boat"
    models = {**FIXED, "x": switch, "B": node("CheckpointLoaderSimple", ckpt_name="wrong"),
              "A": node("LoraLoader", lora_name="ink.safetensors", strength_model=0.5, model=["m", 0])}
    has(read(graph(models, model=["x", 0])), model="base", loras=(Lora("ink", 0.5),), left_out={})


def test_a_switch_that_the_run_sets_is_left_out_and_said() -> None:
    switch = node("ImpactSwitch", select=["u", 0], input1=["p", 0], input2=["n", 0])
    nodes = {"x": switch, "u": node("RandomInt", min=1, max=2)}
    found = read(graph(nodes, positive=["x", 0]))
    has(found, positive="", negative="fog", seed=99)
    assert found.left_out == {"positive": "it comes from RandomInt, which is not known"}
    found = read(graph({**nodes, "x": node("ImpactSwitch", select=["u", 0], input1=["m", 0])}, model=["x", 0]))
    has(found, positive="a boat", model="", loras=())
    assert set(found.left_out) == {"model", "loras"}
    unknown = node("My Conditioning Switch", which="b", conditioning_a=["p", 0], conditioning_b=["n", 0])
    found = read(graph({"x": unknown}, positive=["x", 0]))
    has(found, positive="", left_out={"positive": "which input My Conditioning Switch takes is not known"})


def test_a_switch_of_schedules_or_latents_that_the_run_sets_hides_nothing_else() -> None:
    nodes = {"x": node("ImpactSwitch", select=["u", 0], input1=["b", 0]), "u": node("RandomInt", min=1, max=2)}
    custom = node("SamplerCustom", noise_seed=99, cfg=8, positive=["p", 0], negative=["n", 0], model=["m", 0],
                  sampler=["d", 0], sigmas=["x", 0], latent_image=["e", 0])
    schedule = {"d": node("KSamplerSelect", sampler_name="euler"),
                "b": node("BasicScheduler", model=["m", 0], scheduler="karras", steps=20, denoise=1)}
    found = read({**graph(), **nodes, **schedule, "s": custom})
    has(found, positive="a boat", sampler="euler", seed=99, cfg=8.0, model="base", steps=None, scheduler="")
    latents = {**nodes, "x": node("ImpactSwitch", select=["u", 0], input1=["l", 0]), "l": EMPTY}
    has(read(graph(latents, latent_image=["x", 0])), positive="a boat", width=512, height=640, left_out={})


def test_contexts_and_pipes() -> None:
    nodes = {"c": node("Context (rgthree)", model=["m", 0], positive=["p", 0], negative=["q", 0], seed=["z", 0]),
             "d": node("Context (rgthree)", base_ctx=["c", 0], negative=["n", 0]),
             "q": node("CLIPTextEncode", text="replaced later"), "z": node("SeedNode", seed=5)}
    has(read(graph(nodes, model=["d", 1], positive=["d", 4], negative=["d", 5], seed=["d", 8])),
        positive="a boat", negative="fog", seed=5, model="base", left_out={})
    pipes = {"i": node("ToBasicPipe", model=["m", 0], positive=["p", 0], negative=["n", 0]),
             "o": node("FromBasicPipe", basic_pipe=["i", 0])}
    has(read(graph(pipes, model=["o", 0], positive=["o", 3], negative=["o", 4])),
        positive="a boat", negative="fog", model="base", left_out={})


EASY = {
    "l": node("easy fullLoader", ckpt_name="base.safetensors", lora_name="None", lora_model_strength=1,
              resolution="832 x 1216", empty_latent_width=512, empty_latent_height=512, positive=["a", 0],
              negative="fog", batch_size=1, optional_lora_stack=["k", 0]),
    "a": node("easy positive", positive="a boat"),
    "k": node("easy loraStack", toggle=True, mode="simple", num_loras=1, lora_1_name="ink.safetensors",
              lora_1_strength=0.5, lora_1_model_strength=9, lora_2_name="beyond", lora_2_strength=1),
    "r": node("easy preSampling", pipe=["l", 0], steps=20, cfg=8, sampler_name="euler", scheduler="karras",
              denoise=1, seed=99),
    "s": node("easy kSampler", pipe=["r", 0], image_output="Preview", link_id=0, save_prefix="x"),
}
EASY_READ: dict[str, Any] = {
    "positive": "a boat", "negative": "fog", "seed": 99, "steps": 20, "cfg": 8.0, "sampler": "euler",
    "scheduler": "karras", "width": 832, "height": 1216, "model": "base", "loras": (Lora("ink", 0.5),), "left_out": {}}


def test_easy_pipes() -> None:
    has(read(EASY), **EASY_READ)
    second = {"r2": node("easy preSampling", pipe=["s", 0], steps=5, cfg=1, sampler_name="lcm", scheduler="simple",
                         denoise=0.5, seed=1),
              "0": node("easy kSampler", pipe=["r2", 0], image_output="Save"), "w": node("SaveImage", images=["0", 1])}
    has(read({**second, **EASY}), **EASY_READ)
    full = {**EASY, "s": node("easy fullkSampler", pipe=["l", 0], steps=20, cfg=8, sampler_name="euler",
                              scheduler="karras", denoise=1, seed=99)}
    has(read(full), **EASY_READ)
    out = {**EASY, "o": node("easy pipeOut", pipe=["i", 0]), "i": node("easy pipeIn", pipe=["r", 0], pos=["p", 0]),
           "p": node("CLIPTextEncode", text="a car"), "e": EMPTY,
           "s": sampler(model=["o", 1], positive=["o", 2], negative=["o", 3], seed=["o", 8], latent_image=["o", 4])}
    has(read(out), **EASY_READ | {"positive": "a car"})
    wild = {**EASY, "l": node("easy a1111Loader", **{**EASY["l"]["inputs"], "positive": "a {boat|car}"})}
    found = read(wild)
    has(found, positive="", seed=99, steps=20, model="base")
    assert found.left_out["positive"] == "its wildcards are filled in while the graph runs"


# Texts of texts -------------------------------------------------------------------------------------------------------


# The pack's own nodes -------------------------------------------------------------------------------------------------


# LoRAs ----------------------------------------------------------------------------------------------------------------

LOADERS = {
    "CR LoRA Stack": {"a": node("CR Apply LoRA Stack", model=["m", 0], lora_stack=["b", 0]),
                      "b": node("CR LoRA Stack", switch_1="On", lora_name_1="ink.safetensors", model_weight_1=0.5,
                                clip_weight_1=1, switch_2="Off", lora_name_2="off", model_weight_2=1)},
    "LoRA Stacker": {"a": node("CR Apply LoRA Stack", model=["m", 0], lora_stack=["b", 0]),
                     "b": node("LoRA Stacker", input_mode="advanced", lora_count=1, lora_name_1="ink.safetensors",
                               lora_wt_1=9, model_str_1=0.5, clip_str_1=1)},
    "LoraManager": {"a": node("Lora Loader (LoraManager)", model=["m", 0], text="<lora:ink:0.5>", loras={"__value__": [
        {"name": "ink", "strength": 0.5, "active": True}, {"name": "off", "strength": 1, "active": False}]})},
    "LoraManager, plain": {"a": node("Lora Loader (LoraManager)", model=["m", 0], loras=[
        {"name": "ink", "strength": "0.50", "active": True}])},
    "LoraManager, stack": {"a": node("Lora Loader (LoraManager)", model=["m", 0], loras=[], lora_stack=["b", 0]),
                           "b": node("Lora Stacker (LoraManager)", loras=[{"name": "ink", "strength": 0.5}])},
    "pictures": {"a": node("LoraLoader|pysssss", model=["m", 0], strength_model=0.5,
                           lora_name={"content": "x/ink.safetensors", "image": None})},
    "switch": {"a": node("CR Load LoRA", model=["b", 0], switch="Off", lora_name="off", strength_model=1),
               "b": node("LoraLoaderModelOnly", model=["m", 0], lora_name="ink", strength_model=["c", 0]),
               "c": node("PrimitiveFloat", value=0.5)},
    "own": {"a": node("AtelierApplyLora", model=["m", 0], lora=["b", 0], strength_model=0.5, strength_clip=1),
            "b": node("AtelierTrainLora", name="ink", steps=100)},
}


@pytest.mark.parametrize("loaders", LOADERS.values(), ids=list(LOADERS))
def test_loras_of_every_loader(loaders: dict[str, Any]) -> None:
    has(read(graph(loaders, model=["a", 0])), model="base", loras=(Lora("ink", 0.5),), left_out={})


def test_a_lora_whose_strength_is_made_is_left_out_and_said() -> None:
    nodes = {"a": node("LoraLoader", model=["m", 0], lora_name="ink", strength_model=["b", 0]),
             "b": node("Math", a=1, b=2)}
    has(read(graph(nodes, model=["a", 0])), model="base", loras=(),
        left_out={"loras": "the strength of ink is not in the graph"})


# Hostile --------------------------------------------------------------------------------------------------------------

def test_switches_and_pipes_that_decide_on_each_other_come_to_an_end() -> None:
    chain = {f"x{i}": node("ImpactSwitch", select=[f"x{i + 1}", 0], input1=[f"x{i + 1}", 0], input2=[f"x{i + 1}", 0])
             for i in range(2000)}
    pipes = {f"c{i}": node("Context (rgthree)", base_ctx=[f"c{i + 1}", 4]) for i in range(2000)}
    itself = {"i": node("ImpactSwitch", select=["i", 0], input1=["i", 0]),
              "j": node("Context (rgthree)", base_ctx=["j", 4]),
              "k": node("Reroute", **{"": ["k", 0]}), "t": node("StringConcatenate", string_a=["t", 0])}
    for link in (["x0", 0], ["c0", 4], ["i", 0], ["j", 4], ["k", 0], ["gone", 0]):
        found = read(graph({**chain, **pipes, **itself}, positive=link, model=link, steps=link))
        has(found, positive="", steps=None, negative="fog")
        assert "positive" in found.left_out
    assert said(["t", 0], itself) == ""
    has(read({**GRAPH, **itself}), **READ)


@pytest.mark.parametrize("wrong", [None, True, -1, 1.5, "", "x", [], ["A", 0], ["A", -1], ["A", 99], ["x", 0], {},
                                   {"__value__": 3}, [{"name": 3}], [3]], ids=json.dumps)
def test_known_nodes_with_anything_in_an_input_are_survived(wrong: Any) -> None:
    for kind_nodes in (*LOADERS.values(), *({"x": switch} for switch in SWITCHES.values())):
        for name, each in kind_nodes.items():
            for key in each["inputs"]:
                changed = {**each, "inputs": {**each["inputs"], key: wrong}}
                nodes = {**FIXED, "A": node("CLIPTextEncode", text="a"), **kind_nodes, name: changed}
                first = next(iter(kind_nodes))
                read(graph(nodes, model=[first, 0], positive=[first, 0]))
