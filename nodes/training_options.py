"""The node for how to train: everything but the adapter's own shape."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..atelier.train.request.device import PRECISIONS
from ..atelier.train.request.levels import DISTRIBUTIONS, SHIFTS
from ..atelier.train.request.outputs import LORA_FORMATS, NO_SCORE, SAVE_DTYPES
from ..atelier.train.request.recipe import MONITORS, OPTIMIZERS, SCHEDULES
from . import sockets
from .comparison_widgets import check_score_model, score_model_state
from .host import folders
from .preset_widgets import changed, choice, count, number, switch, text


class TrainingOptionsNode(io.ComfyNode):
    """Optimiser, schedule, loss, validation, samples, precision and memory, where they differ from the preset's."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierTrainingOptions",
            display_name="Training Options",
            category="Atelier/training",
            description="How to train, where it differs from the preset of Train LoRA.",
            search_aliases=["learning rate", "optimizer", "batch size", "early stopping", "sample prompt"],
            inputs=[
                text("sample_prompt", "Draw a picture of each of these prompts, one a line, while training."),
                number("learning_rate", "Size of a step. Too high breaks pictures, too low learns nothing.", step=1e-7,
                       by=1e-5, high=10),
                count("batch_size", "Pictures per batch. More is steadier and needs more memory. 0: as many as fit.",
                      high=256),
                count("gradient_accumulation", "Batches per step: a larger batch without its memory.", low=1, high=256),
                choice("optimizer", OPTIMIZERS,
                       "Names with 8bit need the package bitsandbytes; lion, came and adafactor the package "
                       "pytorch-optimizer; prodigy the package prodigyopt and a rate of 1."),
                choice("schedule", SCHEDULES, "The learning rate over the run; all but constant fall to 0."),
                count("warmup_steps", "Steps in which the learning rate rises from 0."),
                choice("monitor", MONITORS,
                       "What early stopping and the best weights are judged by: a loss on fixed pictures, noise and "
                       "timesteps, the mean training loss of an epoch, fidelity or likeness of the samples (with "
                       "score_model), or nothing (then set patience to 0)."),
                count("patience", "Looks without improvement after which training ends. 0: never early."),
                choice("precision", PRECISIONS,
                       "Of the frozen weights and the arithmetic. The LoRA itself is always trained in fp32."),
                choice("gradient_checkpointing", ("auto", "on", "off"),
                       "Trades time for memory; auto only does so when memory demands it."),
                number("text_learning_rate", "Used for the text encoder when it is trained.", step=1e-7, by=1e-5,
                       high=10, advanced=True),
                number("beta1", "AdamW's memory of the gradient.", step=1e-5, by=0.001, high=0.9999, advanced=True),
                number("beta2", "AdamW's memory of the gradient's square.", step=1e-5, by=0.001, high=0.99999,
                       advanced=True),
                number("weight_decay", "Pull of all trained weights towards 0.", step=1e-5, by=0.001, high=10,
                       advanced=True),
                number("max_grad_norm", "Larger gradients are scaled down to this. 0: never.", step=0.001, by=0.1,
                       high=1000, advanced=True),
                number("min_snr_gamma", "Evens out the weight of noise levels; 5 is usual, 0 is off.", step=0.01,
                       by=0.5, high=100, advanced=True),
                number("noise_offset", "Helps very dark and very bright pictures; 0.03 to 0.1, 0 is off.", step=1e-4,
                       by=0.01, high=1, advanced=True),
                number("prior_weight", "Loss weight of prior-preservation pictures.", step=0.001, by=0.05, high=100,
                       advanced=True),
                number("caption_dropout", "Share of uses with an empty caption, which keeps guidance working.",
                       step=0.001, by=0.01, high=0.99, advanced=True),
                count("caption_variants", "Shuffled versions of each comma-separated caption to train with.", low=1,
                      high=64, advanced=True),
                count("keep_tokens", "Parts at the start of a caption that shuffling leaves in place.", high=64,
                      advanced=True),
                number("min_delta", "A loss must be this much below the best to count as better.", step=1e-5, by=0.001,
                       high=10, advanced=True),
                count("validation_timesteps", "Noise levels at which each validation picture is judged.", low=8,
                      high=1000, advanced=True),
                count("validation_pictures", "At most so many pictures are used for validation.", low=1, high=1000,
                      advanced=True),
                switch("holdout", "Keep validation pictures out of training, from 10 pictures on.", advanced=True),
                count("validate_every", "Steps between validations. 0: each epoch, at most every 50 steps.",
                      advanced=True),
                text("sample_negative", "Negative prompt of the sample pictures.", advanced=True),
                count("sample_every", "Steps between sample pictures. 0: four times in the run.", advanced=True),
                count("sample_steps", "Denoising steps of a sample picture.", low=1, high=200, advanced=True),
                number("sample_cfg", "How closely a sample picture follows its prompt.", step=0.01, by=0.5, high=100,
                       advanced=True),
                count("save_every", "Also keep a LoRA every so many steps. 0: only best and last.", advanced=True),
                choice("form", LORA_FORMATS,
                       "Names in the LoRA file: kohya for ComfyUI and A1111, diffusers for Python.", advanced=True),
                number("ema_decay", "Average the weights over time; 0.999 is usual, 0 is off.", step=1e-5, by=0.001,
                       high=0.99999, advanced=True),
                choice("compile", ("off", "on"),
                       "Compile the UNet: minutes before the first step, then faster ones on many cards. Where it "
                       "cannot be compiled, training goes on without.", advanced=True),
                choice("save_dtype", SAVE_DTYPES,
                       "Storage type of the LoRA file: fp16 and bf16 make it half as large.", advanced=True),
                number("tag_dropout", "Share of the tags beyond keep_tokens that each variant of a caption leaves out. "
                       "Needs caption_variants.", step=0.001, by=0.05, high=0.99, advanced=True),
                choice("level_distribution", DISTRIBUTIONS,
                       "Flow models: which noise levels are trained most. logit_normal prefers the middle.",
                       advanced=True),
                choice("level_shift", SHIFTS,
                       "Flow models: levels moved towards noise as the model is sampled, by the pictures' resolution, "
                       "or by shift_value.", advanced=True),
                number("shift_value", "Flow models, level_shift value: 1 moves nothing, 3 is usual.", step=1e-4, by=0.5,
                       high=100, low=0.01, advanced=True),
                text("sample_seeds", "Seeds with commas: each sample prompt is drawn with each. Without any, with the "
                     "seed of Train LoRA.", multiline=False, advanced=True),
                io.Combo.Input("score_model", options=[NO_SCORE, *folders.clip_score_names()], default=NO_SCORE,
                               optional=True, advanced=True,
                               tooltip="A CLIP model in models/clip_score that scores the samples: fidelity to the "
                                       "prompts and likeness to the training pictures, beside those of the base "
                                       "model. The curves show overfitting: likeness rises and fidelity falls."),
            ],
            outputs=[sockets.TrainingOptions.Output(display_name="options", tooltip="For Train LoRA.")],
        )

    @classmethod
    def validate_inputs(cls, score_model: str | None = None) -> bool | str:
        """Report before the run that the CLIP model is missing."""
        return score_model is None or check_score_model(score_model)

    @classmethod
    def fingerprint_inputs(cls, score_model: str | None = None, **_: Any) -> str:
        """Change when the CLIP model's files do."""
        return score_model_state(score_model)

    @classmethod
    def execute(cls, **values: Any) -> io.NodeOutput:
        """Hand on what differs from the preset; the request checks it when Train LoRA builds it."""
        overrides = changed(values)
        if overrides.get("score_model", NO_SCORE) != NO_SCORE:
            overrides["score_model"] = str(folders.clip_score_path(overrides["score_model"]))
        return io.NodeOutput(overrides)
