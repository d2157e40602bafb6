"""Where the model files that shipped workflows name can be had: public addresses of their usual publishers."""

from __future__ import annotations

from typing import Any

HUB = "https://huggingface.co"
ANIMA = f"{HUB}/circlestone-labs/Anima/resolve/main/split_files"
QWEN_IMAGE = f"{HUB}/Comfy-Org/Qwen-Image_ComfyUI/resolve/main/split_files"
ADDRESSES = {
    "v1-5-pruned-emaonly-fp16.safetensors":
        f"{HUB}/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/v1-5-pruned-emaonly-fp16.safetensors",
    "sd-v1-4.ckpt": f"{HUB}/CompVis/stable-diffusion-v-1-4-original/resolve/main/sd-v1-4.ckpt",
    "sd_turbo.safetensors": f"{HUB}/stabilityai/sd-turbo/resolve/main/sd_turbo.safetensors",
    "sd_xl_base_1.0.safetensors":
        f"{HUB}/stabilityai/stable-diffusion-xl-base-1.0/resolve/main/sd_xl_base_1.0.safetensors",
    **{f"sdxl_lightning_{steps}step_lora.safetensors":
       f"{HUB}/ByteDance/SDXL-Lightning/resolve/main/sdxl_lightning_{steps}step_lora.safetensors"
       for steps in (2, 4, 8)},
    "control_v11f1p_sd15_depth_fp16.safetensors":
        f"{HUB}/comfyanonymous/ControlNet-v1-1_fp16_safetensors/resolve/main/control_v11f1p_sd15_depth_fp16.safetensors",
    "depth_anything_3_mono_large.safetensors":
        f"{HUB}/Comfy-Org/Depth-Anything-3/resolve/main/geometry_estimation/depth_anything_3_mono_large.safetensors",
    "mediapipe_face_fp32.safetensors":
        f"{HUB}/Comfy-Org/mediapipe/resolve/main/detection/mediapipe_face_fp32.safetensors",
    "open_clip_model.safetensors":
        f"{HUB}/timm/vit_base_patch32_clip_224.openai/resolve/main/open_clip_model.safetensors",
    "anima-base-v1.0.safetensors": f"{ANIMA}/diffusion_models/anima-base-v1.0.safetensors",
    "qwen_3_06b_base.safetensors": f"{ANIMA}/text_encoders/qwen_3_06b_base.safetensors",
    "qwen_image_vae.safetensors": f"{QWEN_IMAGE}/vae/qwen_image_vae.safetensors",
    "krea2_raw_fp8_scaled.safetensors":
        f"{HUB}/Comfy-Org/Krea-2/resolve/main/diffusion_models/krea2_raw_fp8_scaled.safetensors",
    "qwen3vl_4b_fp8_scaled.safetensors":
        f"{HUB}/Comfy-Org/Krea-2/resolve/main/text_encoders/qwen3vl_4b_fp8_scaled.safetensors",
    "flux-2-klein-base-4b.safetensors":
        f"{HUB}/Comfy-Org/flux2-klein/resolve/main/split_files/diffusion_models/flux-2-klein-base-4b.safetensors",
    "flux2-vae.safetensors": f"{HUB}/Comfy-Org/flux2-dev/resolve/main/split_files/vae/flux2-vae.safetensors",
    "qwen_3_4b.safetensors":
        f"{HUB}/Comfy-Org/z_image_turbo/resolve/main/split_files/text_encoders/qwen_3_4b.safetensors",
    "z_image_bf16.safetensors":
        f"{HUB}/Comfy-Org/z_image/resolve/main/split_files/diffusion_models/z_image_bf16.safetensors",
    "ae.safetensors": f"{HUB}/Comfy-Org/z_image_turbo/resolve/main/split_files/vae/ae.safetensors",
    "qwen_image_fp8_e4m3fn.safetensors": f"{QWEN_IMAGE}/diffusion_models/qwen_image_fp8_e4m3fn.safetensors",
    "qwen_2.5_vl_7b_fp8_scaled.safetensors": f"{QWEN_IMAGE}/text_encoders/qwen_2.5_vl_7b_fp8_scaled.safetensors",
    "sd3.5_large_fp8_scaled.safetensors":
        f"{HUB}/Comfy-Org/stable-diffusion-3.5-fp8/resolve/main/sd3.5_large_fp8_scaled.safetensors",
    "GFPGANv1.4.pth": "https://github.com/TencentARC/GFPGAN/releases/download/v1.3.4/GFPGANv1.4.pth",
}
"""By file name."""
FOLDERS = {
    "CheckpointLoaderSimple": {"ckpt_name": "checkpoints"}, "UNETLoader": {"unet_name": "diffusion_models"},
    "CLIPLoader": {"clip_name": "text_encoders"}, "VAELoader": {"vae_name": "vae"},
    "LoraLoader": {"lora_name": "loras"}, "LoraLoaderModelOnly": {"lora_name": "loras"},
    "ControlNetLoader": {"control_net_name": "controlnet"}, "UpscaleModelLoader": {"model_name": "upscale_models"},
    "LoadMediaPipeFaceLandmarker": {"model_name": "detection"}, "LoadDA3Model": {"model_name": "geometry_estimation"},
    "AtelierConvertCheckpoint": {"checkpoint": "checkpoints"}, "AtelierOpenModel": {"model": "checkpoints"},
    "AtelierModelToCompare": {"checkpoint": "checkpoints", "lora": "loras"},
    "AtelierResizeLora": {"lora": "loras"}, "AtelierMergeLoras": {"first": "loras", "second": "loras"},
    "AtelierCLIPScore": {"model": "clip_score"}, "AtelierCompareModels": {"score_model": "clip_score"},
    "AtelierXYGrid": {"score_model": "clip_score"}, "AtelierTrainingOptions": {"score_model": "clip_score"},
}
"""The widgets that name a model file, by class, and the folder below `models/` that each is looked for in."""
OWN = {"my-subject.safetensors", "my-style.safetensors"}
"""Files that the workflows themselves write."""


def models_of(node: dict[str, Any]) -> list[dict[str, str]]:
    """What a node's `properties.models` lists, so that the editor offers the download of what is missing.

    Args:
        node: Of a graph in API format.
    """
    named = [(node["inputs"][widget], folder) for widget, folder in FOLDERS.get(node["class_type"], {}).items()]
    return [{"name": name, "url": ADDRESSES[name], "directory": folder} for name, folder in named
            if isinstance(name, str) and name in ADDRESSES]
