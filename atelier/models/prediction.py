"""Decide whether a UNet predicts noise (epsilon) or velocity (v_prediction).

The weights themselves do not say. Evidence is taken in this order: the user's choice, a folder's scheduler
configuration, a marker tensor, the file's metadata, the configuration that its maker put beside it (the same name with
.yaml), and for SD2 one statistic. The result names the evidence, so that
a guess is never silent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import AtelierError
from ..limits import Limits, read_limited
from .families import PREDICTION_TYPES
from .kinds import Kind, kind_of
from .layout import ModelLayout

V_MARKERS = ("v_pred", "edm_vpred.sigma_max")
"""Tensors whose mere presence marks v-prediction; the host writes and reads the first."""

ZERO_SNR_MARKER = "ztsnr"

V_SIGNS = (*V_MARKERS, "edm_vpred.sigma_min", ZERO_SNR_MARKER)
"""Marker tensors that only v-prediction models have."""

_PARAMETERIZATION = re.compile(r"""^[ \t]*parameterization:[ \t]*["']?(?P<kind>v|eps)["']?[ \t]*(?:#.*)?\r?$""", re.M)

SD2_PROBE = "up_blocks.3.attentions.2.transformer_blocks.0.norm1.bias"
SD2_SPREAD = 0.09
"""In the known SD2 v-prediction models this bias spreads wider, in the epsilon models less. The host goes by the same
number, so both agree; it is a rule of thumb all the same."""


@dataclass(frozen=True)
class Prediction:
    """The prediction type, and the evidence for it."""

    type: str
    """"epsilon" or "v_prediction"."""
    because: str
    """What decided, as the end of the sentence "the prediction type is … by …"."""
    zero_terminal_snr: bool = False
    """Whether the noise schedule was rescaled to end in pure noise."""


def read_prediction(layout: ModelLayout, asked: str = "auto") -> Prediction:
    """Decide what the model predicts.

    Args:
        layout: The model.
        asked: "auto", or the answer.

    Raises:
        AtelierError: `asked` is neither.
    """
    if asked not in ("auto", *PREDICTION_TYPES):
        raise AtelierError(f"prediction_type is {asked!r}.", f"Choose auto, {' or '.join(PREDICTION_TYPES)}.")
    entries, scheduler = layout.source.entries, layout.scheduler
    zero_snr = ZERO_SNR_MARKER in entries or bool(scheduler.get("rescale_betas_zero_snr"))
    if asked != "auto":
        # The host, too, heeds the marker of zero terminal SNR beside that of v-prediction alone.
        return Prediction(asked, "choice", zero_snr and asked == "v_prediction")
    stated = scheduler.get("prediction_type")
    if stated in PREDICTION_TYPES:
        return Prediction(str(stated), "the folder's scheduler_config.json", zero_snr)
    for marker in V_MARKERS:
        if marker in entries:
            return Prediction("v_prediction", f"the tensor {marker}", zero_snr)
    stated = layout.source.metadata.get("modelspec.prediction_type", "")
    if stated:
        return Prediction("v_prediction" if stated.startswith("v") else "epsilon", "the file's metadata", zero_snr)
    if stated := _yaml_parameterization(layout.path):
        return Prediction("v_prediction" if stated == "v" else "epsilon", layout.path.with_suffix(".yaml").name,
                          zero_snr)
    if layout.family.key == "x4-upscaler":
        return Prediction("v_prediction", "its family", zero_snr)
    probe = layout.unet.tensors.get(SD2_PROBE)
    if layout.family.key == "sd2" and probe is not None:
        spread = float(probe.read().float().std(correction=0))
        return Prediction("v_prediction" if spread > SD2_SPREAD else "epsilon",
                          f"a rule of thumb for SD2 (one bias spreads by {spread:.3f}); state it if pictures burn",
                          zero_snr)
    return Prediction("epsilon", "default, as nothing says otherwise", zero_snr)


def read_kind(layout: ModelLayout, prediction: Prediction) -> Kind:
    """The kind of model, by its family, its prediction type and its file's name."""
    path = layout.path
    if path.parent.name == "snapshots":  # the hub's cache names a folder by its commit
        path = path.parent.parent
    return kind_of(layout.family.key, prediction.type, path.name)


def _yaml_parameterization(path: Path) -> str:
    """`parameterization` in the original configuration beside a checkpoint: "v", "eps", or "" where nothing says."""
    file = path.with_suffix(".yaml")
    try:
        text = read_limited(file, Limits(size=2**20)).decode("utf-8-sig") if file.is_file() else ""
    except (OSError, ValueError):  # a hint alone, of whatever program: without it the rest of the evidence decides
        return ""
    found = _PARAMETERIZATION.search(text)
    return found["kind"] if found else ""
