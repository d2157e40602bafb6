"""The pack's own socket types."""

from __future__ import annotations

from comfy_api.latest import io

DiffusersModel = io.Custom("DIFFUSERS_MODEL")
"""`atelier.models.handle.DiffusersModel`: path and description of a model, without weights."""

TrainingSet = io.Custom("TRAINING_SET")
"""`atelier.dataset.types.TrainingSet`."""

LoraConfig = io.Custom("LORA_CONFIG")
"""The trainer's dataclass for rank, alpha, dropout, targets and kind."""

TrainingOptions = io.Custom("TRAINING_OPTIONS")
"""The trainer's dataclass for everything that is not the LoRA's own shape."""

LoraModel = io.LoraModel
"""The host's own type: a state dict in kohya keys with alphas, on CPU."""

Scores = io.Custom("SCORES")
"""Per picture: prompt, cosine, tokens used and cut, model, definition."""

ComparedModels = io.Custom("COMPARED_MODELS")
"""A tuple of `atelier.compare.compared_model.ComparedModel`, in the order of the comparison's columns."""

Llm = io.Custom("LLM")
"""Endpoint, model and the *name* of a credential; never a key."""

Choice = io.Custom("COMBO,STRING")
"""A name for an input that is a list of names, or a text."""
