"""The demo model's shapes, as diffusers configurations: narrow as trained and stored, wide as expanded.

The wide shapes are what Stable Diffusion 1 loaders accept: a UNet of 320 base channels with a text width of 768 (two
levels of one residual block instead of four of two), SD 1.5's autoencoder, and CLIP ViT-L/14's text encoder.
"""

from __future__ import annotations

from typing import Any

TEXT: dict[str, Any] = {
    "vocab_size": 49408, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
    "num_attention_heads": 12, "max_position_embeddings": 77, "hidden_act": "quick_gelu", "projection_dim": 768,
    "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407,
}
LATENT_SCALE = 0.18215
"""SD 1.x's scaling factor: latents the UNet sees are the encoder's times this."""


def vae(channels: int) -> dict[str, Any]:
    """Configure `AutoencoderKL` with `channels` base channels: 16 as trained, 128 as expanded.

    The number of norm groups follows, so that a group holds four channels at the finest level in both.
    """
    return {
        "in_channels": 3, "out_channels": 3, "latent_channels": 4, "layers_per_block": 2,
        "block_out_channels": (channels, 2 * channels, 4 * channels, 4 * channels), "norm_num_groups": channels // 4,
        "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
        "scaling_factor": LATENT_SCALE, "sample_size": 128,
    }


def unet(channels: int) -> dict[str, Any]:
    """Configure `UNet2DConditionModel` with `channels` channels at both levels: 160 as trained, 320 as expanded."""
    return {
        "sample_size": 16, "in_channels": 4, "out_channels": 4, "layers_per_block": 1,
        "block_out_channels": (channels, channels), "cross_attention_dim": TEXT["hidden_size"],
        "attention_head_dim": 8,  # diffusers' old name: this is the number of heads
        # Attention at the coarse level only: at the fine one it would take more than half of every step.
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "norm_num_groups": 32, "use_linear_projection": False,
    }


SCHEDULER: dict[str, Any] = {
    "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon", "steps_offset": 1, "clip_sample": False, "set_alpha_to_one": False,
}
