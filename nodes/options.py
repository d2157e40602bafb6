"""Nodes for what a newcomer need not meet: the shape of the adapter and the options of a run.

Ids of widgets are the field names of the library's dataclasses, and defaults are theirs.
"""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..atelier.train.config import TARGETS, LoraConfig, TrainingOptions
from . import sockets
from .widgets import arrow_step

_LORA = LoraConfig()
_RUN = TrainingOptions()


class LoraConfigNode(io.ComfyNode):
    """Rank, alpha, dropout, targets and kind of the adapter."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierLoraConfig",
            display_name="LoRA Config",
            category="Atelier/training",
            description="The shape of the LoRA to train. Without this node the preset of Train LoRA decides.",
            search_aliases=["rank", "alpha", "dora", "network dim"],
            inputs=[
                io.Int.Input("rank", default=_LORA.rank, min=1, max=1024,
                             tooltip="Inner width of each adapter. More learns finer detail and makes a larger file."),
                io.Float.Input("alpha", default=_LORA.alpha, min=0.01, max=4096, step=0.01,
                               extra_dict=arrow_step(0.5),
                               tooltip="The change is scaled by alpha / rank. Equal to rank is a safe choice."),
                io.Float.Input("dropout", default=_LORA.dropout, min=0, max=0.95, step=0.001,
                               extra_dict=arrow_step(0.05),
                               tooltip="Share of inputs left out at random in training, against overfitting."),
                io.Combo.Input("targets", options=list(TARGETS), default=_LORA.targets,
                               tooltip="Layers of the UNet to adapt: attention, only the attention to the text, "
                                       "attention with feed-forward, or these with convolutions."),
                io.Combo.Input("kind", options=["lora", "dora"], default=_LORA.kind,
                               tooltip="DoRA also learns the length of each weight: often closer to full fine-tuning, "
                                       "slower."),
                io.Boolean.Input("rslora", default=_LORA.rslora, advanced=True,
                                 tooltip="Scale by alpha / √rank, which keeps high ranks useful."),
                io.Boolean.Input("train_text_encoder", default=_LORA.train_text_encoder, advanced=True,
                                 tooltip="Also adapt the text encoder. Helps a new word along, overfits sooner."),
            ],
            outputs=[sockets.LoraConfig.Output(display_name="config", tooltip="For Train LoRA.")],
        )

    @classmethod
    def execute(cls, **values: Any) -> io.NodeOutput:
        """The dataclass checks itself."""
        return io.NodeOutput(LoraConfig(**values))


def _number(name: str, tooltip: str, step: float, by: float, high: float, **more: Any) -> io.Input:
    return io.Float.Input(name, default=getattr(_RUN, name), min=0, max=high, step=step, tooltip=tooltip,
                          extra_dict=arrow_step(by), **more)


def _count(name: str, tooltip: str, low: int = 0, high: int = 100_000, **more: Any) -> io.Input:
    return io.Int.Input(name, default=getattr(_RUN, name), min=low, max=high, tooltip=tooltip, **more)


def _choice(name: str, options: list[str], tooltip: str, **more: Any) -> io.Input:
    return io.Combo.Input(name, options=options, default=getattr(_RUN, name), tooltip=tooltip, **more)


def _text(name: str, tooltip: str, **more: Any) -> io.Input:
    return io.String.Input(name, default=getattr(_RUN, name), multiline=True, tooltip=tooltip, **more)


class TrainingOptionsNode(io.ComfyNode):
    """Optimiser, schedule, loss, validation, samples, precision and memory."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierTrainingOptions",
            display_name="Training Options",
            category="Atelier/training",
            description="How to train. Without this node the preset of Train LoRA decides.",
            search_aliases=["learning rate", "optimizer", "batch size", "early stopping", "sample prompt"],
            inputs=[
                _text("sample_prompt", "Draw a picture of this now and then while training. Empty: none."),
                _number("learning_rate", "Size of a step. Too high breaks pictures, too low learns nothing.", 1e-7,
                        1e-5, 10),
                _count("batch_size", "Pictures per batch. More is steadier and needs more memory.", 1, 256),
                _count("gradient_accumulation", "Batches per step: a larger batch without its memory.", 1, 256),
                _choice("optimizer", ["adamw", "adamw8bit", "prodigy"],
                        "adamw8bit needs the package bitsandbytes, prodigy the package prodigyopt and a rate of 1."),
                _choice("schedule", ["constant", "linear", "cosine"],
                        "The learning rate over the run; linear and cosine fall to 0."),
                _count("warmup_steps", "Steps in which the learning rate rises from 0."),
                _choice("monitor", ["validation", "epoch", "off"],
                        "What early stopping and the best weights are judged by: a loss on fixed pictures, noise and "
                        "timesteps, the mean training loss of an epoch, or nothing (then set patience to 0)."),
                _count("patience", "Looks without improvement after which training ends. 0: never early."),
                _choice("precision", ["auto", "fp32", "bf16", "fp16"],
                        "Of the frozen weights and the arithmetic. The LoRA itself is always trained in fp32."),
                _choice("gradient_checkpointing", ["auto", "on", "off"],
                        "Trades time for memory; auto only does so when memory demands it."),
                _number("text_learning_rate", "Used for the text encoder when it is trained.", 1e-7, 1e-5, 10,
                        advanced=True),
                _number("beta1", "AdamW's memory of the gradient.", 1e-5, 0.001, 0.9999, advanced=True),
                _number("beta2", "AdamW's memory of the gradient's square.", 1e-5, 0.001, 0.99999, advanced=True),
                _number("weight_decay", "Pull of all trained weights towards 0.", 1e-5, 0.001, 10, advanced=True),
                _number("max_grad_norm", "Larger gradients are scaled down to this. 0: never.", 0.001, 0.1, 1000,
                        advanced=True),
                _number("min_snr_gamma", "Evens out the weight of noise levels; 5 is usual, 0 is off.", 0.01, 0.5, 100,
                        advanced=True),
                _number("noise_offset", "Helps very dark and very bright pictures; 0.03 to 0.1, 0 is off.", 1e-4, 0.01,
                        1, advanced=True),
                _number("prior_weight", "Loss weight of prior-preservation pictures.", 0.001, 0.05, 100, advanced=True),
                _number("caption_dropout", "Share of uses with an empty caption, which keeps guidance working.",
                        0.001, 0.01, 0.99, advanced=True),
                _count("caption_variants", "Shuffled versions of each comma-separated caption to train with.", 1, 64,
                       advanced=True),
                _count("keep_tokens", "Parts at the start of a caption that shuffling leaves in place.", 0, 64,
                       advanced=True),
                _number("min_delta", "A loss must be this much below the best to count as better.", 1e-5, 0.001, 10,
                        advanced=True),
                _count("validation_timesteps", "Noise levels at which each validation picture is judged.", 8, 1000,
                       advanced=True),
                _count("validation_pictures", "At most so many pictures are used for validation.", 1, 1000,
                       advanced=True),
                io.Boolean.Input("holdout", default=_RUN.holdout, advanced=True,
                                 tooltip="Keep validation pictures out of training, from 10 pictures on."),
                _count("validate_every", "Steps between looks. 0: each epoch, at most every 50 steps.", advanced=True),
                _text("sample_negative", "Negative prompt of the sample pictures.", advanced=True),
                _count("sample_every", "Steps between sample pictures. 0: four times in the run.", advanced=True),
                _count("sample_steps", "Denoising steps of a sample picture.", 1, 200, advanced=True),
                _number("sample_cfg", "How closely a sample picture follows its prompt.", 0.01, 0.5, 100,
                        advanced=True),
                _count("save_every", "Also keep a LoRA every so many steps. 0: only best and last.", advanced=True),
                _choice("form", ["kohya", "diffusers"],
                        "Names in the LoRA file: kohya for ComfyUI and A1111, diffusers for Python.", advanced=True),
                _number("ema_decay", "Average the weights over time; 0.999 is usual, 0 is off.", 1e-5, 0.001, 0.99999,
                        advanced=True),
                _choice("compile", ["off", "on"],
                        "Compile the UNet: minutes before the first step, then faster ones on many cards. Where it "
                        "cannot be compiled, training goes on without.", advanced=True),
            ],
            outputs=[sockets.TrainingOptions.Output(display_name="options", tooltip="For Train LoRA.")],
        )

    @classmethod
    def execute(cls, **values: Any) -> io.NodeOutput:
        """The dataclass checks itself."""
        return io.NodeOutput(TrainingOptions(**values))
