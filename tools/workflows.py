"""Write the editor's format of each workflow from its API format, so that the two never disagree.

    python tools/workflows.py [NAME …] [--keep-heights]

The API format is what a person edits. Beside `class_type` and `inputs`, a node's `_meta` (ignored by the queue) gives
the editor its `title`, its `group`, roughly its place (`pos`: the column, and the order in it), its width (`size`), and
a `note` to stand below it. A ComfyUI is started for the nodes' definitions, and its editor in Chromium measures how
high nodes are; with --keep-heights those that are recorded in tools/node_heights.json count.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))

from tools.measure_nodes import FILE, read_heights  # noqa: E402 - the path is set just above
from tools.workflow_form import editor_form  # noqa: E402

FOLDER = ROOT / "workflows"
TITLES = {
    "try_it_without_downloads":
        "01 Try it without downloads - a small model learns a pencil style and draws in it",
    "whole_pipeline_without_downloads":
        "02 Whole pipeline without downloads - train, draw eight prompts, score, compose a grid",
    "finetune_then_generate":
        "03 Fine-tune then generate - a LoRA from your pictures, one prompt without and with it",
    "lora_at_four_strengths": "04 LoRA at four strengths - which suits your prompts, by picture and by score",
    "finetune_then_compare_strengths":
        "05 Fine-tune then compare strengths - train once, then see and score four strengths",
    "finetune_sd_turbo": "06 Fine-tune SD-Turbo - your subject in a model that draws in a few steps",
    "finetune_and_export":
        "07 Fine-tune and export - pictures of a graph, a small LoRA, files for other programs",
    "learn_an_art_style": "08 Learn an art style - from a data set, scored, in a grid of photographs",
    "prompts_by_a_language_model": "09 Prompts by a language model - drawn without and with a LoRA, scored",
    "grid_of_generated_pictures":
        "10 Grid of generated pictures - fillers from prompts that a language model invents",
    "grid_among_photographs": "11 Grid among photographs - one generated picture in each block, scored",
    "similar_pictures": "12 Similar pictures - six like yours, the two most alike kept",
    "image_to_image": "13 Image to image - your picture redrawn in 10 and in 40 steps",
    "guidance_sweep": "14 Guidance sweep - one picture for each guidance scale, scored",
    "samplers_compared": "15 Samplers compared - LMS and DDIM in 10, 20 and 40 steps",
    "merge_sweep": "16 Merge sweep - two models mixed in several shares, scored",
    "sdxl_lightning": "17 SDXL-Lightning - 2, 4 and 8 steps side by side, with times",
    "depth_to_image": "18 Depth to image - a new picture in the shape of yours",
    "restore_faces": "19 Restore faces - small or blurred faces drawn anew",
    "read_a_prompt": "20 Read a prompt - a picture's own prompt drawn again, the best two kept",
    "tokens_explained": "21 Tokens explained - what the text encoder reads of a prompt",
    "embeddings_explained": "22 Embeddings explained - pictures on the way from one text to another",
    "noise_explained": "23 Noise explained - what the seed decides",
    "denoising_explained": "24 Denoising explained - every step of the loop as a picture",
    "guidance_explained": "25 Guidance explained - without it, with it, and with too much",
    "vae_explained": "26 VAE explained - into a latent and back, and what is lost",
    "which_step_of_my_training_is_best":
        "27 Which step of my training is best - every saved step on your prompts, scored",
    "caption_train_compare":
        "28 Caption, train, compare - a language model describes your pictures, then with and without",
    "prepare_a_training_set":
        "29 Prepare a training set - two folders joined, faults left out, prior pictures drawn first",
    "lora_tools": "30 LoRA tools - one taken out of a checkpoint, one made smaller, two merged into one",
    "finetune_anima": "31 Fine-tune Anima - a LoRA of a drawing style, one prompt without and with it",
    "finetune_krea_2": "32 Fine-tune Krea 2 - a LoRA on the raw model in eight bits, without and with it",
    "finetune_flux_2_klein": "33 Fine-tune FLUX.2 klein - a LoRA on the base model of 4 billion parameters",
    "finetune_z_image": "34 Fine-tune Z-Image - a LoRA on the base model, one prompt without and with it",
    "finetune_qwen_image": "35 Fine-tune Qwen-Image - a LoRA on the model in eight bits, without and with it",
    "finetune_sd_3_5": "36 Fine-tune SD 3.5 - a LoRA on the large model in eight bits, without and with it",
}
"""File names in the editor's format. The templates dialog shows them as title and description, and the pack's script
lists them by their numbers (web/js/templates.js). An API file has the name of its title, before the dash."""
QUEUE_ONLY = (
    "sdxl_base",
    "sdxl_turbo",
    "sdxl_lightning_unet_2_steps",
    "sdxl_lightning_unet_4_steps",
    "sdxl_lightning_unet_8_steps",
    "sdxl_lightning_lora_2_steps",
    "sdxl_lightning_lora_4_steps",
    "sdxl_lightning_lora_8_steps",
    "model_merge_then_generate",
    "inpainting",
    "outpainting",
    "upscale_real_esrgan",
    "upscale_x4_tiles",
)
"""Workflows of the host's own nodes alone, for the queue: the editor has templates of its own for what they do."""


def text_of(workflow: dict[str, Any]) -> str:
    """The file's content."""
    return json.dumps(workflow, indent=1, ensure_ascii=False) + "\n"


def read_api(name: str) -> dict[str, Any]:
    """A workflow in API format."""
    return json.loads((FOLDER / "api" / f"{name}.json").read_text(encoding="utf-8"))


def measure(host: Any, names: list[str], nodes: dict[str, Any]) -> None:
    """Record the heights of workflows' nodes as a running host's editor draws them."""
    from kit.editor import Editor, browser

    from tools.measure_nodes import LOW, measured, write_heights

    heights = read_heights() if FILE.exists() else {}
    for name in names:
        heights[name] = {}
    with browser() as chromium:
        for vue in (False, True):
            host.post("/settings/Comfy.VueNodes.Enabled", vue)
            with Editor(chromium, host) as editor:
                for name in names:
                    form = editor_form(read_api(name), nodes, defaultdict(lambda: LOW))
                    for number, height in measured(editor, form).items():
                        heights[name][number] = max(height, heights[name].get(number, LOW))
    write_heights({name: heights[name] for name in TITLES if name in heights})


def main() -> int:
    """Write the editor's workflows."""
    parser = argparse.ArgumentParser(description="Write the editor's format of each workflow from its API format.")
    parser.add_argument("names", nargs="*", help="API names; all by default")
    parser.add_argument("--keep-heights", action="store_true", help="measure nothing")
    arguments = parser.parse_args()
    sys.path += [str(ROOT / "tests"), str(ROOT)]
    from kit.host import Host
    from kit.named_files import named_files

    names = arguments.names or list(TITLES)
    with tempfile.TemporaryDirectory() as folder, Host(Path(folder)) as host, named_files(host.base):
        nodes = host.get_json("/object_info")
        if not arguments.keep_heights:
            measure(host, names, nodes)
    heights = read_heights()
    for name in names:
        path = FOLDER / f"{TITLES[name]}.json"
        path.write_text(text_of(editor_form(read_api(name), nodes, heights[name])), encoding="utf-8", newline="\n")
        print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
