"""The pack's own socket types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from ..atelier.errors import AtelierError

if TYPE_CHECKING:
    from ..atelier.models.handle import DiffusersModel as DiffusersModelHandle

DiffusersModel = io.Custom("DIFFUSERS_MODEL")
"""`atelier.models.handle.DiffusersModel`: path and description of a model, without weights; or what Loaded Model gives,
the host's own model, for training and prior pictures alone."""

TrainingSet = io.Custom("TRAINING_SET")
"""`atelier.dataset.types.TrainingSet`."""

LoraConfig = io.Custom("LORA_CONFIG")
"""The trainer's dataclass for rank, alpha, dropout, targets and kind."""

TrainingOptions = io.Custom("TRAINING_OPTIONS")
"""The trainer's dataclass for everything that is not the LoRA's own shape."""


def on_disk(model: Any) -> DiffusersModelHandle:
    """The handle of a Stable Diffusion model on disk, for nodes that read its parts.

    Raises:
        AtelierError: it comes from Loaded Model.
    """
    from ..atelier.models.handle import DiffusersModel as Handle

    if not isinstance(model, Handle):
        raise AtelierError("This model comes from Loaded Model, which is for Train LoRA and Prior Pictures alone.",
                           "Connect Open Model or Convert Checkpoint here; to sample, use the loaders' own MODEL.")
    return model


LoraModel = io.LoraModel
"""The host's own type: a state dict in kohya keys with alphas, on CPU."""

Scores = io.Custom("SCORES")
"""Per picture: prompt, cosine, tokens used and cut, model, definition."""

ComparedModels = io.Custom("COMPARED_MODELS")
"""A tuple of `atelier.compare.compared_model.ComparedModel`, in the order of the comparison's columns."""

Llm = io.Custom("LLM")
"""Endpoint, model and the *name* of a credential; never a key."""

class _ChoiceType(str):
    """The types of a name, which is also taken by inputs that state the list of names in place of a type.

    The host's own loaders and samplers do. It compares types by `!=`, so that a type may say what it goes with; the
    wildcard `*`, the other way, would make the editor suggest the output for every socket there is.
    """

    def __ne__(self, other: object) -> bool:
        return not isinstance(other, list) and str.__ne__(self, other)

    __eq__ = str.__eq__
    __hash__ = str.__hash__


Choice = io.Custom(_ChoiceType("COMBO,STRING"))
"""A name for an input that is a list of names, or a text."""
