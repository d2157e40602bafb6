"""What programs write into their pictures, by the rules of each program's format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from atelier.pictures.metadata.comfy_graph import parse_graph
from atelier.pictures.metadata.settings import Lora, PictureMetadata

A1111 = """a cat, (neon-glasses:1.2),
on two lines <lora:Neon Style_v2:0.75>, <lora:detail:-1>
Negative prompt: blurry, "low quality",
worst
Steps: 28, Sampler: DPM++ 2M Karras, CFG scale: 6.5, Seed: 18446744073709551615, Size: 512x768, \
Model hash: 6ce0161689, Model: v1-5-pruned-emaonly, VAE: "a, b: c", Lora hashes: "Neon Style_v2: 12ab, detail: cd", \
Version: v1.10.1"""


BASE = {"positive": "a cat, (neon-glasses:1.2),\non two lines", "steps": 28, "cfg": 6.5, "seed": 2**64 - 1,
        "sampler": "dpmpp_2m", "scheduler": "karras", "width": 512, "height": 768, "model": "v1-5-pruned-emaonly",
        "model_hash": "6ce0161689", "program": "A1111", "negative": 'blurry, "low quality",\nworst',
        "loras": (Lora("Neon Style_v2", 0.75), Lora("detail", -1.0))}


def has(found: PictureMetadata | None, **wanted: Any) -> None:
    assert found is not None
    assert {name: getattr(found, name) for name in wanted} == wanted


def png(path: Path, **texts: str) -> Path:
    info = PngInfo()
    for keyword, text in texts.items():
        # As the programs do: tEXt where Latin-1 will do, iTXt elsewhere; Pillow chooses so, too.
        info.add_text(keyword.replace("_", "-") if keyword == "sd_metadata" else keyword, text)
    Image.new("RGB", (16, 8)).save(path, pnginfo=info)
    return path


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs, "_meta": {"title": kind}}


GRAPH = {
    "4": node("CheckpointLoaderSimple", ckpt_name="sd1\\dream shaper.safetensors"),
    "10": node("LoraLoader", lora_name="neon.safetensors", strength_model=0.8, strength_clip=1, model=["4", 0],
               clip=["4", 1]),
    "11": node("LoraLoader", lora_name="off.safetensors", strength_model=0, strength_clip=0, model=["10", 0],
               clip=["10", 1]),
    "5": node("EmptyLatentImage", width=512, height=640, batch_size=1),
    "6": node("CLIPTextEncode", text=["12", 0], clip=["11", 1]),
    "7": node("CLIPTextEncode", text="blurry", clip=["11", 1]),
    "12": node("StringConcatenate", string_a="a cat", string_b=["13", 0], delimiter=", "),
    "13": node("PrimitiveStringMultiline", value="in snow"),
    "14": node("PrimitiveInt", value=99),
    "3": node("KSampler", seed=["14", 0], steps=20, cfg=8, sampler_name="dpmpp_2m", scheduler="karras", denoise=1,
              model=["11", 0], positive=["6", 0], negative=["7", 0], latent_image=["5", 0]),
    "8": node("VAEDecode", samples=["3", 0], vae=["4", 2]),
    "9": node("SaveImage", images=["8", 0], filename_prefix="a"),
}


READ = {"program": "ComfyUI", "positive": "a cat, in snow", "negative": "blurry", "seed": 99, "steps": 20, "cfg": 8.0,
        "sampler": "dpmpp_2m", "scheduler": "karras", "width": 512, "height": 640, "model": "dream shaper",
        "loras": (Lora("neon", 0.8),)}


MODEL = node("CheckpointLoaderSimple", ckpt_name="base.safetensors")


EMPTY = node("EmptyLatentImage", width=512, height=640, batch_size=1)


def sampler(**changed: Any) -> dict[str, Any]:
    return node("KSampler", **{"seed": 99, "steps": 20, "cfg": 8, "sampler_name": "euler", "scheduler": "karras",
                               "model": ["m", 0], "positive": ["p", 0], "negative": ["n", 0],
                               "latent_image": ["e", 0], **changed})


def graph(nodes: dict[str, Any] | None = None, **changed: Any) -> dict[str, Any]:
    """A graph with one sampler, of which some inputs are other ones."""
    return {"s": sampler(**changed), "m": MODEL, "e": EMPTY, "p": node("CLIPTextEncode", text="a boat"),
            "n": node("CLIPTextEncode", text="fog"), "v": node("VAEDecode", samples=["s", 0]),
            "w": node("SaveImage", images=["v", 0]), **(nodes or {})}


def read(nodes: dict[str, Any]) -> PictureMetadata:
    found = parse_graph(nodes)
    assert found is not None
    return found


def said(*text: Any) -> str:
    """What a graph reads whose positive prompt is encoded from `text`, a link; its nodes follow."""
    link, nodes = text
    found = read(graph({**nodes, "p": node("CLIPTextEncode", text=link)}))
    assert bool(found.positive) != ("positive" in found.left_out), "read, or said why not"
    return found.positive
