"""Write the table of docs/memory.md on models that ComfyUI has loaded, from the trainer's own count.

    python tools/host_memory_table.py [--check]

Needs ComfyUI's modules. The networks are built at full size without values, so nothing is measured.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "memory.md"
BEGIN, END = "<!-- computed by tools/host_memory_table.py -->", "<!-- end of the host's models -->"
GIB = 1024**3

MODELS: dict[str, tuple[str, dict[str, Any], int, bool]] = {
    "Anima 2B, bf16": ("Anima", {
        "max_img_h": 240, "max_img_w": 240, "max_frames": 128, "in_channels": 16, "out_channels": 16,
        "patch_spatial": 2, "patch_temporal": 1, "concat_padding_mask": True, "model_channels": 2048, "num_blocks": 28,
        "num_heads": 16, "crossattn_emb_channels": 1024, "pos_emb_cls": "rope3d", "pos_emb_learnable": True,
        "pos_emb_interpolation": "crop", "use_adaln_lora": True, "adaln_lora_dim": 256,
        "rope_h_extrapolation_ratio": 4.0, "rope_w_extrapolation_ratio": 4.0, "rope_t_extrapolation_ratio": 1.0,
        "extra_per_block_abs_pos_emb": False, "rope_enable_fps_modulation": False}, 1024, False),
    "Z-Image 6B, fp8": ("ZImage", {
        "patch_size": 2, "in_channels": 16, "dim": 3840, "n_layers": 30, "n_refiner_layers": 2, "n_heads": 30,
        "n_kv_heads": 30, "cap_feat_dim": 2560, "axes_dims": [32, 48, 48], "axes_lens": [1536, 512, 512],
        "rope_theta": 256.0, "qk_norm": True, "ffn_dim_multiplier": 8 / 3, "z_image_modulation": True,
        "time_scale": 1000.0, "pad_tokens_multiple": 32}, 2560, True),
    "Krea 2 12.9B, fp8": ("Krea2", {}, 12 * 2560, True),
}
"""The host's class and configuration, as its detection finds them in the published files; the width of the text
encoder's output; whether the blocks' matrices are stored in eight bits."""

CARDS = (6, 8, 12, 16, 24)
RESERVE = 1.5
"""GiB of a card that training cannot use: the CUDA context, the desktop, fragmentation."""
TOKENS = 256
"""Of the longest caption."""


def counts(pack: Any) -> dict[str, Any]:
    """`StepCount` by model: 1024 × 1024 pixels, batch 1, rank 16 on attention and feed-forward."""
    import comfy.supported_models
    import torch
    from kit.pack import pack_module

    request = pack_module(pack, "atelier.train.request.request").TrainRequest(steps=1)
    request = request.override({"rank": 16, "alpha": 16, "targets": "attention_ff"})
    found = {}
    for name, (kind, config, width, eight) in MODELS.items():
        chosen = getattr(comfy.supported_models, kind)
        own = {key: value for key, value in chosen.unet_config.items() if key == "image_model"}
        made = chosen({**own, **config})
        made.set_inference_dtype(torch.bfloat16, None)
        with torch.device("meta"):
            model = made.get_model({}, "", device="meta")
        model.requires_grad_(False)
        if eight:
            for layer in model.diffusion_model.modules():
                if isinstance(layer, torch.nn.Linear) and layer.weight.numel() > 1_000_000:
                    layer.weight.data = layer.weight.data.to(torch.float8_e4m3fn)
        denoiser = pack_module(pack, "nodes.host.loaded.denoiser").HostDenoiser(model, None, torch.device("cpu"),
                                                                                torch.bfloat16)
        latents = (16, *[1] * (model.latent_format.latent_dimensions - 2), 128, 128)
        data = SimpleNamespace(
            items=[SimpleNamespace(index=0, height=128, width=128, captions=1)],
            moments=lambda index, flip, shape=latents: (torch.zeros(shape),) * 2,
            text=lambda index, variant, width=width: {"text.cond": torch.zeros(1, TOKENS, width)},
            time_ids=lambda index: torch.tensor([1024.0, 1024.0, 0.0, 0.0, 1024.0, 1024.0]))
        found[name] = pack_module(pack, "nodes.host.loaded.counting").count_training(denoiser, data, request)
        assert found[name] is not None, f"{name} could not be counted"
    return found


def table(pack: Any, counted: dict[str, Any]) -> str:
    """What a step takes in three ways, and what is chosen on each card."""
    from kit.pack import pack_module

    plan = pack_module(pack, "atelier.train.memory_plan").plan_memory
    device = pack_module(pack, "atelier.train.request.device").DeviceConfig
    rows = ["| model at 1024 × 1024 | weights | as it is | checkpointing | all blocks in main memory | "
            + " | ".join(f"{card} GB" for card in CARDS) + " |", "|---|" + "---:|" * 4 + "---|" * len(CARDS)]
    for name, count in counted.items():
        ways = [plan(count, device(**values), None).need for values in (
            {"gradient_checkpointing": "off"}, {"gradient_checkpointing": "on"}, {"blocks_to_swap": 1000})]
        chosen = [plan(count, device(), int((card - RESERVE) * GIB)) for card in CARDS]
        rows.append(f"| {name} | " + " | ".join(f"{value / GIB:.1f}" for value in (count.weights, *ways)) + " | "
                    + " | ".join(_said(each) for each in chosen) + " |")
    return "\n".join(rows)


def _said(plan: Any) -> str:
    if not plan.fits:
        return "no"
    if plan.swapped:
        return f"{len(plan.swapped)} of {plan.blocks} blocks away"
    return "checkpointing" if plan.checkpointing else "as it is"


def main() -> int:
    """Write or compare."""
    parser = argparse.ArgumentParser(description="Write the host's models into docs/memory.md.")
    parser.add_argument("--check", action="store_true", help="only say whether the page is what would be written")
    check = parser.parse_args().check
    sys.path += [str(ROOT / "tests"), str(ROOT)]
    from kit.pack import load_pack

    with tempfile.TemporaryDirectory() as folder:
        pack = load_pack(Path(folder))
        content = table(pack, counts(pack))
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    new = f"{before}{BEGIN}\n{content}\n{END}{rest.split(END)[1]}"
    if check:
        print("as computed" if text == new else "run: python tools/host_memory_table.py")
        return int(text != new)
    PAGE.write_text(new, encoding="utf-8", newline="\n")
    print(content)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
