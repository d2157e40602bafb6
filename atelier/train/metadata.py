"""The header of a LoRA file: how it was trained.

Keys `ss_*` are those of kohya's sd-scripts, which ComfyUI, A1111 and Forge show; `modelspec.*` follow Stability's model
metadata standard 1.0.0 (https://github.com/Stability-AI/ModelSpec). No dates: the same run writes the same bytes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .. import __version__
from ..dataset.types import TrainingSet
from .identity import RunIdentity
from .request.lora import DEFAULT_START
from .request.outputs import NO_SCORE
from .request.request import TrainRequest
from .trainable import TrainableModel

_ALGORITHMS = {"loha": "loha", "lokr": "lokr", "oft": "diag-oft"}
"""LyCORIS' names of the kinds that are its own."""


def lora_metadata(name: str, run: RunIdentity, model: TrainableModel, data: TrainingSet, request: TrainRequest,
                  step: int) -> Mapping[str, str]:
    """The header of the LoRA file `name` whose weights are those after optimiser step `step` of run `run`."""
    lora, optimizer, loss, captions = request.lora, request.optimizer, request.loss, request.captions
    size = data.largest
    started = 1 if lora.init_weights == DEFAULT_START else 2  # the file holds the start besides, to take it away
    tags = Counter(part.strip() for s in data.samples for part in s.captions[0].split(",") if part.strip())
    values: dict[str, object] = {
        "ss_output_name": name,
        "ss_network_module": "lycoris.kohya" if lora.kind in _ALGORITHMS else "networks.lora",
        "ss_network_dim": lora.rank * started,
        "ss_network_alpha": 0.0 if lora.kind == "oft" else lora.alpha * (
            lora.rank ** 0.5 if lora.rslora else 1.0) * started,
        "ss_network_dropout": lora.dropout,
        "ss_network_args": json.dumps({"targets": lora.targets, "kind": lora.kind, "rslora": lora.rslora,
                                       **{name: value for name, value in (
                                           ("target_pattern", lora.target_pattern), ("rank_pattern", lora.rank_pattern),
                                           ("rank_dropout", lora.rank_dropout)) if value},
                                       **({"init_weights": lora.init_weights} if started > 1 else {}),
                                       **({"algo": _ALGORITHMS[lora.kind]} if lora.kind in _ALGORITHMS else {}),
                                       **({"factor": lora.lokr_factor} if lora.kind == "lokr" else {})}),
        **model.header(),
        "ss_learning_rate": optimizer.learning_rate,
        "ss_unet_lr": optimizer.learning_rate,
        "ss_text_encoder_lr": optimizer.text_learning_rate if lora.train_text_encoder else 0,
        "ss_optimizer": optimizer.optimizer,
        "ss_lr_scheduler": optimizer.schedule,
        "ss_lr_warmup_steps": optimizer.warmup_steps,
        "ss_max_train_steps": request.steps or None,
        "ss_num_epochs": request.epochs or None,
        "ss_steps": step,
        "ss_total_batch_size": optimizer.batch_size,
        "ss_gradient_accumulation_steps": optimizer.gradient_accumulation,
        "ss_num_train_images": sum(s.repeats for s in data.samples if not s.prior),
        "ss_num_reg_images": sum(1 for s in data.samples if s.prior),
        "ss_prior_loss_weight": loss.prior_weight,
        "ss_resolution": f"({size}, {size})",
        "ss_caption_dropout_rate": captions.caption_dropout,
        "ss_shuffle_caption": captions.caption_variants > 1,
        "ss_keep_tokens": captions.keep_tokens,
        "ss_caption_tag_dropout_rate": captions.tag_dropout,
        "ss_min_snr_gamma": loss.min_snr_gamma or None,
        "ss_noise_offset": loss.noise_offset or None,
        "ss_max_grad_norm": optimizer.max_grad_norm,
        "ss_mixed_precision": request.device.precision,
        "ss_seed": request.seed,
        "ss_tag_frequency": json.dumps({"training set": dict(tags.most_common(200))}, ensure_ascii=False),
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.title": name,
        "modelspec.resolution": f"{size}x{size}",
        "modelspec.trigger_phrase": data.trigger or None,
        "atelier.version": __version__,
        "atelier.run": run,
        "atelier.training_set": data.digest,
        "atelier.config": json.dumps(_config(request), sort_keys=True),
    }
    return {key: str(value) for key, value in values.items() if value is not None}


def _config(request: TrainRequest) -> dict[str, Any]:
    """The request, with the names of files: where they lie is nobody's business."""
    values = asdict(request)
    model = values["samples"]["score_model"]
    values["samples"]["score_model"] = model if model == NO_SCORE else Path(model).name
    values["lora"]["init_lora"] = Path(request.lora.init_lora).name
    return values
