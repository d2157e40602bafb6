"""Write the editor's format of each workflow from its API format, so that the two never disagree.

    python tools/workflows.py [--url http://127.0.0.1:8188]

The API format is what a person edits. Beside `class_type` and `inputs`, a node's `_meta` (ignored by the queue) gives
the editor its `title`, `pos`, `size`, `group` and a `note` to stand below it. The nodes' definitions come from a
running ComfyUI; without --url one is started.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "workflows"
TITLES = {
    "try_it_without_downloads": "Try it without downloads",
    "finetune_then_generate": "Fine-tune then generate",
    "approach_1_pretrained_with_photo_fillers": "Approach 1, pretrained with photo fillers",
    "approach_2_lora_style": "Approach 2, LoRA style",
    "approach_3_all_generated": "Approach 3, all generated",
    "chatgpt_prompts_base_vs_lora": "ChatGPT prompts, base and LoRA",
    "img2img_10_vs_40_steps": "Image to image, 10 and 40 steps",
    "cfg_sweep": "Guidance sweep",
    "sdxl_base": "SDXL",
    "sdxl_turbo": "SDXL Turbo, 1 step",
    "sdxl_lightning_unet_2_steps": "SDXL-Lightning UNet, 2 steps",
    "sdxl_lightning_unet_4_steps": "SDXL-Lightning UNet, 4 steps",
    "sdxl_lightning_unet_8_steps": "SDXL-Lightning UNet, 8 steps",
    "sdxl_lightning_lora_2_steps": "SDXL-Lightning LoRA, 2 steps",
    "sdxl_lightning_lora_4_steps": "SDXL-Lightning LoRA, 4 steps",
    "sdxl_lightning_lora_8_steps": "SDXL-Lightning LoRA, 8 steps",
    "sd_turbo_finetune_then_generate": "Fine-tune SD-Turbo then generate",
    "model_merge_then_generate": "Merge models then generate",
    "model_merge_sweep": "Merge sweep with scores",
    "compare_lora_strengths": "LoRA at four strengths",
    "finetune_then_compare_strengths": "Fine-tune then compare strengths",
    "lms_vs_ddim": "LMS and DDIM in 10, 20 and 40 steps",
    "inpainting": "Inpainting",
    "outpainting": "Outpainting",
    "similar_pictures": "Similar pictures",
    "depth_to_image": "Depth to image",
    "restore_faces": "Restore faces",
    "upscale_real_esrgan": "Upscale with Real-ESRGAN",
    "upscale_x4_tiles": "Upscale with the x4 upscaler, in tiles",
    "sdxl_lightning_side_by_side": "SDXL-Lightning, 2, 4 and 8 steps side by side",
    "chapter_1_tokens": "Chapter 1, tokens",
    "chapter_2_embeddings": "Chapter 2, embeddings",
    "chapter_3_noise": "Chapter 3, noise",
    "chapter_4_unet": "Chapter 4, denoising",
    "chapter_5_guidance": "Chapter 5, guidance",
    "chapter_6_vae": "Chapter 6, the VAE",
}
"""File names in the editor's format: the host shows them as the templates' titles."""

CHOICE = "COMFY_DYNAMICCOMBO_V3"
"""What the host calls a choice that brings inputs of its own: "output" brings "output.normalization", …"""
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", CHOICE}
WIDTH, ROW, HEADER, TEXT_ROWS, GAP = 320, 24, 46, 4, 60
OPTIONAL, LIST = 7, 6
"""The editor's shape numbers: of a socket that may stay empty, and of one that gives a list."""
GROWING, MATCHED = "COMFY_AUTOGROW_V3", "COMFY_MATCHTYPE_V3"
"""What the host calls an input of as many sockets as are linked, and a socket of the type that is linked to it."""


def editor_form(api: dict[str, Any], nodes: dict[str, Any]) -> dict[str, Any]:
    """A graph in the editor's format (version 0.4).

    Args:
        api: The graph in API format, ids whole numbers as text.
        nodes: The host's `/object_info`.
    """
    links: list[list[Any]] = []
    built = [_node(int(name), node, nodes[node["class_type"]], api, nodes, links) for name, node in api.items()]
    by_id = {node["id"]: node for node in built}
    for number, source, slot, *_ in links:
        by_id[source]["outputs"][slot]["links"].append(number)
    for order, node in enumerate(sorted(built, key=lambda node: node["id"])):
        node["order"] = order
    noted = [name for name, node in api.items() if "note" in node["_meta"]]
    notes = [_note(number, api[name], by_id[int(name)]) for number, name in enumerate(noted, max(by_id) + 1)]
    return {"revision": 0, "last_node_id": max(by_id) + len(notes), "last_link_id": len(links), "nodes": built + notes,
            "links": links, "groups": _groups(api, by_id, notes), "config": {}, "extra": {}, "version": 0.4}


def _node(number: int, node: dict[str, Any], info: dict[str, Any], api: dict[str, Any], nodes: dict[str, Any],
          links: list[list[Any]]) -> dict[str, Any]:
    inputs: list[dict[str, Any]] = []
    values: list[Any] = []
    lines = 0
    for name, spec, optional in specs(info, node["inputs"]):
        kind = "COMBO" if isinstance(spec[0], list) else spec[0]
        options = spec[1] if len(spec) > 1 else {}
        given = node["inputs"].get(name)
        linked = isinstance(given, list)
        widget = kind in WIDGETS and not options.get("forceInput")
        if linked or not widget:
            if kind == MATCHED:
                kind = _matched(node, api, nodes)
            socket: dict[str, Any] = {"name": name, "type": kind, "link": None}
            if "." in name:
                socket["label"] = name.split(".")[1]
            if optional:
                socket["shape"] = OPTIONAL
            if widget:
                socket["widget"] = {"name": name}
            if linked:
                links.append([len(links) + 1, int(given[0]), given[1], number, len(inputs), _type(given, api, nodes)])
                socket["link"] = len(links)
            inputs.append(socket)
        if widget:
            values.append(_default(spec) if linked else given)
            lines += 0 if options.get("advanced") else TEXT_ROWS if options.get("multiline") else 1
            if options.get("control_after_generate"):
                values.append("fixed")
                lines += 1
            if options.get("image_upload"):
                values.append("image")
                lines += 1
    outputs = [{"name": name, "type": _type([str(number), slot], api, nodes), "links": [],
                **({"shape": LIST} if is_list else {})}
               for slot, (name, is_list) in enumerate(zip(info["output_name"], info["output_is_list"], strict=True))]
    meta = node["_meta"]
    height = HEADER + ROW * (max(len(inputs), len(outputs)) + lines)
    return {"id": number, "type": node["class_type"], "pos": meta["pos"], "size": meta.get("size", [WIDTH, height]),
            "flags": {}, "order": 0, "mode": 0, "inputs": inputs, "outputs": outputs, "title": meta["title"],
            "properties": {"Node name for S&R": node["class_type"]}, "widgets_values": values}


def specs(info: dict[str, Any], given: dict[str, Any]) -> Iterator[tuple[str, list[Any], bool]]:
    """Every input as (name, its definition by the host, optional), in the order of the editor's widgets."""
    for part in ("required", "optional"):
        for name in info["input_order"].get(part, []):
            spec = info["input"][part][name]
            if spec[0] == GROWING:
                yield from _grown(name, spec[1]["template"], given)
                continue
            yield name, spec, part == "optional"
            if spec[0] == CHOICE:
                yield from _chosen(name, spec[1]["options"], given)


def _grown(name: str, template: dict[str, Any], given: dict[str, Any]) -> Iterator[tuple[str, list[Any], bool]]:
    """The linked sockets of a growing input and one free one, as the editor shows it."""
    (spec,) = next(part for part in template["input"].values() if part).values()
    names = template.get("names") or [f"{template['prefix']}{number}" for number in range(template["max"])]
    count = sum(f"{name}.{part}" in given for part in names)
    for number, part in enumerate(names[:count + 1]):
        yield f"{name}.{part}", spec, number >= template["min"]


def _chosen(name: str, options: list[dict[str, Any]], given: dict[str, Any]) -> Iterator[tuple[str, list[Any], bool]]:
    """The inputs that belong to the chosen option."""
    inputs = next(option["inputs"] for option in options if option["key"] == given[name])
    for part in ("required", "optional"):
        for inner, spec in inputs.get(part, {}).items():
            yield f"{name}.{inner}", spec, part == "optional"


def _type(source: list[Any], api: dict[str, Any], nodes: dict[str, Any]) -> str:
    """The type of a node's output, where `source` is [the node's id, the output's index]."""
    node = api[source[0]]
    kind = nodes[node["class_type"]]["output"][source[1]]
    return _matched(node, api, nodes) if kind == MATCHED else kind


def _matched(node: dict[str, Any], api: dict[str, Any], nodes: dict[str, Any]) -> str:
    """The type that a node's matching sockets take from the first of them that is linked."""
    return next(_type(given, api, nodes) for name, given in node["inputs"].items()
                if "." in name and isinstance(given, list))


def _default(spec: list[Any]) -> Any:
    options = spec[1] if len(spec) > 1 else {}
    empty = {"INT": 0, "FLOAT": 0.0, "STRING": "", "BOOLEAN": False}
    return options.get("default", empty.get(spec[0]) if isinstance(spec[0], str) else spec[0][0])


def _note(number: int, node: dict[str, Any], below: dict[str, Any]) -> dict[str, Any]:
    text = node["_meta"]["note"]
    (x, y), (width, height) = below["pos"], below["size"]
    rows = len(text) // (width // 8) + text.count("\n") + 2
    return {"id": number, "type": "MarkdownNote", "pos": [x, y + height + GAP], "size": [width, HEADER + ROW * rows],
            "flags": {}, "order": number - 1, "mode": 0, "inputs": [], "outputs": [], "title": "Note",
            "properties": {}, "widgets_values": [text], "color": "#432", "bgcolor": "#653"}


def _groups(api: dict[str, Any], by_id: dict[int, Any], notes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    noted = iter(notes)
    for name, node in api.items():
        members = groups.setdefault(node["_meta"]["group"], [])
        members.append(by_id[int(name)])
        if "note" in node["_meta"]:
            members.append(next(noted))
    return [{"id": index, "title": title, "bounding": _around(members), "color": "#3f789e", "font_size": 24,
             "flags": {}} for index, (title, members) in enumerate(groups.items(), 1)]


def _around(members: list[dict[str, Any]]) -> list[float]:
    left = min(m["pos"][0] for m in members) - 20
    top = min(m["pos"][1] for m in members) - 80
    right = max(m["pos"][0] + m["size"][0] for m in members) + 20
    bottom = max(m["pos"][1] + m["size"][1] for m in members) + 20
    return [left, top, right - left, bottom - top]


def text_of(workflow: dict[str, Any]) -> str:
    """The file's content."""
    return json.dumps(workflow, indent=1, ensure_ascii=False) + "\n"


def read_api(name: str) -> dict[str, Any]:
    """A workflow in API format."""
    return json.loads((FOLDER / "api" / f"{name}.json").read_text(encoding="utf-8"))


def main() -> int:
    """Write the editor's workflows."""
    parser = argparse.ArgumentParser(description="Write the editor's format of each workflow from its API format.")
    parser.add_argument("--url", help="a running ComfyUI with the pack; without it one is started")
    arguments = parser.parse_args()
    if arguments.url:
        with urllib.request.urlopen(f"{arguments.url}/object_info") as answer:
            nodes = json.loads(answer.read())
    else:
        sys.path += [str(ROOT / "tests"), str(ROOT)]
        from kit.host import Host

        with tempfile.TemporaryDirectory() as folder, Host(Path(folder)) as host:
            nodes = host.get_json("/object_info")
    for name, title in TITLES.items():
        path = FOLDER / f"{title}.json"
        path.write_text(text_of(editor_form(read_api(name), nodes)), encoding="utf-8", newline="\n")
        print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
