"""Prompts that nodes of a ComfyUI graph put together from other texts."""

from __future__ import annotations

import re
from typing import Any

import pytest
from kit.found_prompts import graph, has, node, read, said
from kit.pack import node_classes


def words(kind: str, **inputs: Any) -> str:
    return said(["t", 0], {"t": node(kind, **inputs), "a": node("PrimitiveString", value="a boat"),
                           "b": node("PrimitiveString", value="in fog"), "c": node("PrimitiveInt", value=3)})


@pytest.mark.parametrize(("kind", "inputs", "text"), [
    ("StringFunction|pysssss", {"action": "append", "tidy_tags": "yes", "text_a": ["a", 0], "text_b": "undefined",
                                "text_c": "in fog ,  old"}, "a boat, in fog, old"),
    ("StringFunction|pysssss", {"action": "append", "tidy_tags": "no", "text_a": "a", "text_b": "b"}, "ab"),
    ("StringFunction|pysssss", {"action": "replace", "tidy_tags": "no", "text_a": ["a", 0], "text_b": "boat",
                                "text_c": "car"}, "a car"),
    ("StringFunction|pysssss", {"action": "replace", "tidy_tags": "no", "text_a": "a", "text_b": "/(x+)+/"}, ""),
    ("Text Concatenate", {"delimiter": ", ", "clean_whitespace": "true", "text_a": ["a", 0], "text_b": " ",
                          "text_c": [" b", 0], "text_d": ["b", 0]}, ""),
    ("Text Concatenate", {"delimiter": ", ", "clean_whitespace": "true", "text_a": ["a", 0], "text_b": " ",
                          "text_d": ["b", 0]}, "a boat, in fog"),
    ("Text Concatenate", {"delimiter": "\\n", "clean_whitespace": "false", "text_b": ["b", 0], "text_a": ["a", 0]},
     "a boat\nin fog"),
    ("CR Text Concatenate", {"text1": ["a", 0], "text2": ["b", 0], "separator": " | "}, "a boat | in fog"),
    ("CR Text Replace", {"text": ["a", 0], "find1": "boat", "replace1": "car", "find2": "a c", "replace2": "the c"},
     "the car"),
    ("JoinStrings", {"string1": ["a", 0], "string2": ["b", 0], "delimiter": " "}, "a boat in fog"),
    ("JoinStringMulti", {"inputcount": 2, "string_1": ["a", 0], "string_2": ["b", 0], "delimiter": "; "},
     "a boat; in fog"),
    ("easy promptConcat", {"prompt1": ["a", 0], "prompt2": ["b", 0], "separator": ", "}, "a boat, in fog"),
    ("ShowText|pysssss", {"text": ["a", 0], "text_0": "of the run before"}, "a boat"),
    ("StringFormat", {"f_string": "{a} {{x}} {b}, {c} times", "values.a": ["a", 0], "values.b": ["b", 0],
                      "values.c": ["c", 0]}, "a boat {x} in fog, 3 times"),
    ("StringFormat", {"f_string": "{a.__class__}", "values.a": ["a", 0]}, ""),
    ("StringFormat", {"f_string": "{a:>1000000000}", "values.a": ["a", 0]}, ""),
    ("StringFormat", {"f_string": "{a", "values.a": ["a", 0]}, ""),
    ("RegexReplace", {"string": ["a", 0], "regex_pattern": "(a+)+$", "replace": ""}, ""),
    ("Unknown Mixer", {"first": ["a", 0], "second": ["b", 0]}, ""),
])
def test_texts_that_nodes_put_together(kind: str, inputs: dict[str, Any], text: str) -> None:
    assert words(kind, **inputs) == text


@pytest.mark.host
@pytest.mark.parametrize(("kind", "inputs"), [
    ("StringConcatenate", {"string_a": "", "string_b": "a boat", "delimiter": "x, "}),
    ("StringConcatenate", {"string_a": "a", "string_b": "b", "delimiter": ""}),
    ("StringReplace", {"string": "a boat, a boat", "find": "boat", "replace": "car"}),
    ("StringReplace", {"string": "a boat", "find": "", "replace": ""}),
    ("StringReplace", {"string": "ab", "find": "", "replace": "-"}),
    *(("CaseConverter", {"string": "a Tin bOat", "mode": mode}) for mode in (
        "UPPERCASE", "lowercase", "Capitalize", "Title Case")),
    *(("StringTrim", {"string": " a\n", "mode": mode}) for mode in ("Both", "Left", "Right")),
    ("StringFormat", {"f_string": "{a}{{}}{b}{a}", "values.a": "x", "values.b": "y"}),
])
def test_the_hosts_nodes_say_what_the_host_makes_of_them(kind: str, inputs: dict[str, Any], pack: Any) -> None:
    from comfy_extras import nodes_string

    values = {name.removeprefix("values."): value for name, value in inputs.items() if name.startswith("values.")}
    plain = {name: value for name, value in inputs.items() if not name.startswith("values.")}
    theirs, = getattr(nodes_string, kind).execute(**plain, **({"values": values} if values else {})).result
    assert words(kind, **inputs) == theirs.strip()


def test_a_styler_gives_what_was_written_and_says_what_it_adds() -> None:
    styler = node("SDXLPromptStyler", text_positive="a boat", text_negative="fog", style="cinematic",
                  style_positive=True, style_negative=False)
    found = read(graph({"t": styler, "p": node("CLIPTextEncodeSDXL", text_g=["t", 0], text_l=["t", 0]),
                        "n": node("CLIPTextEncode", text=["t", 1])}))
    has(found, positive="a boat", negative="fog",
        left_out={"positive": "the style cinematic puts more around it"})


def test_a_switch_is_no_text() -> None:
    """A node of another pack may have a switch where others have a text."""
    assert said(["t", 0], {"t": node("Another", text=True, prompt="a boat")}) == "a boat"
    assert said(["t", 0], {"t": node("Another", text=7)}) == "7"


def test_texts_beyond_all_bounds_are_left_out() -> None:
    many = {f"t{i}": node("StringReplace", string=[f"t{i + 1}", 0], find="a", replace="a" * 5000) for i in range(6)}
    assert said(["t0", 0], {**many, "t6": node("PrimitiveString", value="a" * 5000)}) == ""
    deep = {f"t{i}": node("StringConcatenate", string_a=[f"t{i + 1}", 0], string_b="b", delimiter="")
            for i in range(40)}
    assert said(["t0", 0], {**deep, "t40": node("PrimitiveString", value="a")}) == "a" + "b" * 40
    deep = {f"t{i}": node("StringConcatenate", string_a=[f"t{i + 1}", 0], string_b="b", delimiter="")
            for i in range(61)} | {"t61": node("PrimitiveString", value="a")}
    assert [len(said([f"t{i}", 0], deep)) for i in (0, 1, 2)] == [0, 0, 60]
    for kind, inputs in (("CR Text Replace", {"text": "a", "find1": "a"}),
                         ("easy promptReplace", {"prompt": "a", "find1": "a"})):
        assert len(words(kind, **inputs, replace1="b" * 100_000)) == 100_000
        assert words(kind, **inputs, replace1="b" * 100_001) == ""
    assert words("JoinStringMulti", inputcount=3, string_1="a", string_2="b", string_3="c", delimiter="," * 60000) == ""


def test_a_prompt_list_of_one_is_certain_and_of_more_is_not() -> None:
    one = {"t": node("AtelierPromptList", text="# boats\n a tin boat \n\n", before="a sketch of ", after="in fog.",
                     seed=40)}
    assert said(["t", 0], one) == "a sketch of a tin boat in fog."
    assert said(["t", 2], one) == "a tin boat"
    has(read(graph(one, seed=["t", 1])), seed=40, left_out={})
    two = {"t": node("AtelierPromptList", text="a boat\na car", before="", after="", seed=40)}
    found = read(graph({**two, "p": node("CLIPTextEncode", text=["t", 0])}, seed=["t", 1]))
    has(found, positive="", seed=None, negative="fog")
    assert set(found.left_out.values()) == {"Prompt List gives several, and the graph does not say which"}


@pytest.mark.host
@pytest.mark.parametrize(("before", "after"), [
    ("", ""), ("a sketch of", ", soft"), (" of ", "in fog "), ("of", " x"), (" ", " ")])
def test_a_prompt_list_of_one_reads_as_the_node_writes(pack: Any, before: str, after: str) -> None:
    nodes = node_classes(pack)
    inputs = {"text": "# no\n a boat \n", "before": before, "after": after, "seed": 2}
    prompts, seeds, lines = nodes["AtelierPromptList"].execute(**inputs).result
    graph_nodes = {"t": node("AtelierPromptList", **inputs)}
    assert [[said(["t", 0], graph_nodes)], [said(["t", 2], graph_nodes)]] == [[prompts[0].strip()], lines]
    has(read(graph(graph_nodes, seed=["t", 1])), seed=seeds[0])


@pytest.mark.parametrize("kind", ["AtelierWritePrompt", "AtelierRandomArtPrompts"])
def test_prompts_that_were_written_while_the_graph_ran_are_said_to_be(kind: str) -> None:
    found = read(graph({"p": node("CLIPTextEncode", text=["t", 0]), "t": node(kind, idea="a boat", seed=3)}))
    assert found.positive == ""
    assert re.fullmatch(r"(Write Prompt|Random Art Prompts) makes it while the graph runs", found.left_out["positive"])
