"""The adapter to train. All of it decides the weights, so all of it belongs to a run's identity."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from ...errors import AtelierError
from .checks import check_types, require, require_fraction, require_one_of

TARGETS = {
    "attention": r".*\.attn[12]\.(to_q|to_k|to_v|to_out\.0)",
    "cross_attention": r".*\.attn2\.(to_q|to_k|to_v|to_out\.0)",
    "attention_ff": r".*\.(attn[12]\.(to_q|to_k|to_v|to_out\.0)|ff\.net\.(0\.proj|2))",
    "attention_ff_conv": (r".*\.(attn[12]\.(to_q|to_k|to_v|to_out\.0)|ff\.net\.(0\.proj|2)|proj_in|proj_out|"
                          r"conv1|conv2|conv_shortcut|time_emb_proj|downsamplers\.0\.conv|upsamplers\.0\.conv)"),
    "all_linear": (r".*\.(attn[12]\.(to_q|to_k|to_v|to_out\.0)|ff\.net\.(0\.proj|2)|proj_in|proj_out|time_emb_proj)"),
}
"""UNet layers that get an adapter, as PEFT's `target_modules`: patterns over diffusers' module paths. In other networks
the layers of the same role get one (`atelier.train.blocks`)."""

TEXT_TARGETS = r".*\.self_attn\.(q_proj|k_proj|v_proj|out_proj)"
"""Text-encoder layers that get an adapter when the text encoder is trained."""

KINDS = ("lora", "dora", "loha", "lokr", "oft")

DEFAULT_START = "default"
STARTS = (DEFAULT_START, "pissa", "olora")


def layer_pattern(component: str, config: LoraConfig) -> str:
    """The pattern of the layers that get an adapter in diffusers' UNet ("unet") or in a text encoder of CLIP."""
    return config.target_pattern or TARGETS[config.targets] if component == "unet" else TEXT_TARGETS


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """The adapter: W' = W + (alpha / rank) · B · A on the chosen layers (https://arxiv.org/abs/2106.09685).

    Raises:
        AtelierError: a value is out of range or of another type; the message names the field.
    """

    rank: int = 16
    """Inner dimension r of each adapter, 1 to 1024. Of kind "oft": output channels that turn together, at most."""
    alpha: float = 16.0
    """The delta is scaled by alpha / rank (alpha / √rank with `rslora`). Without a meaning for kind "oft"."""
    dropout: float = 0.0
    """Probability that an input of the adapter is zeroed in training, in [0, 1)."""
    targets: str = "attention"
    """Which UNet layers: a key of `TARGETS`."""
    kind: str = "lora"
    """"lora", "dora" (weight-decomposed, https://arxiv.org/abs/2402.09353), "loha" (Hadamard product of two LoRAs,
    https://arxiv.org/abs/2108.06098), "lokr" (Kronecker product, https://arxiv.org/abs/2309.14859) or "oft" (rotations
    of output channels, https://arxiv.org/abs/2306.07280)."""
    rslora: bool = False
    """Scale by alpha / √rank (https://arxiv.org/abs/2312.03732)."""
    train_text_encoder: bool = False
    """Also train adapters on the text encoder's attention."""
    rank_dropout: float = 0.0
    """Probability that a rank of an adapter is left out for a picture in training, in [0, 1)."""
    target_pattern: str = ""
    """Layers of the network by a regular expression that their whole path matches, in the place of `targets`:
    `.*attn2\\.to_[kv]`. Paths are diffusers' for Stable Diffusion, the network's own otherwise."""
    rank_pattern: str = ""
    """Ranks of single layers: "attn2 = 32; ff\\.net.* = 8:4" gives a rank, and behind a colon an alpha (else as much of
    the rank as elsewhere). The first regular expression counts that a path, or the end of one behind a dot, matches."""
    lokr_factor: int = -1
    """Of kind "lokr": the height of the first of the two matrices, and its width; the nearest divisor of the layer's
    below it counts. -1: such that both matrices are about as large."""
    init_weights: str = DEFAULT_START
    """What A and B start from: "default", at random and B at zero; "pissa", the largest singular values of the weight
    that is adapted (https://arxiv.org/abs/2404.02948); "olora", its QR factors (https://arxiv.org/abs/2406.01775).
    These two learn faster at first, want a lower rate, and write a LoRA of twice the rank."""
    init_lora: str = ""
    """A LoRA file that training starts from; empty: from nothing."""

    def __post_init__(self) -> None:
        check_types(self)
        require(1 <= self.rank <= 1024, "rank", self.rank, "Choose a whole number from 1 to 1024.")
        require(self.alpha > 0, "alpha", self.alpha, "Choose a number above 0; alpha = rank gives scale 1.")
        require_fraction(self, "dropout")
        require_one_of(self, "targets", tuple(TARGETS))
        require_one_of(self, "kind", KINDS)
        require(self.kind != "oft" or min(rank for rank, _ in self._sizes()) > 1, "rank with kind 'oft'", self.rank,
                "Choose 2 or more: a single channel cannot turn. 8 to 32 is usual.")
        require_fraction(self, "rank_dropout")
        _expression("target_pattern", self.target_pattern)
        _rules(self)
        require_one_of(self, "init_weights", STARTS)
        require(self.init_weights == DEFAULT_START or (self.kind == "lora" and not self.init_lora),
                f"init_weights with kind {self.kind!r} and init_lora {self.init_lora!r}", self.init_weights,
                "Leave it at default, or choose kind lora and no init_lora.")
        require(self.lokr_factor == -1 or self.lokr_factor > 1, "lokr_factor", self.lokr_factor,
                "Choose -1, or a number above 1: 8 or 16 is usual.")
        for name in ("rank_dropout", "init_lora"):
            require(self.kind == "lora" or not getattr(self, name), f"{name} with kind {self.kind!r}",
                    getattr(self, name), "Choose kind lora, or leave it out.")
        for name in ("dropout", "rslora"):
            require(self.kind in ("lora", "dora") or not getattr(self, name), f"{name} with kind {self.kind!r}",
                    getattr(self, name), "Choose kind lora or dora, or leave it out.")

    def _sizes(self) -> list[tuple[int, float]]:
        return [(self.rank, self.alpha), *((rank, alpha) for _, rank, alpha in _rules(self))]

    def size(self, path: str) -> tuple[int, float]:
        """Rank and alpha of the layer at a module path."""
        for pattern, rank, alpha in _rules(self):
            if pattern.fullmatch(path):
                return rank, alpha
        return self.rank, self.alpha


def _rules(config: LoraConfig) -> list[tuple[re.Pattern[str], int, float]]:
    rules = []
    for rule in filter(None, (part.strip() for part in config.rank_pattern.split(";"))):
        pattern, found, values = rule.rpartition("=")
        rank, _, alpha = (part.strip() for part in values.partition(":"))
        try:
            size = int(rank), float(alpha or int(rank) * config.alpha / config.rank)
        except ValueError:
            size = 0, 0.0
        require(bool(found) and 1 <= size[0] <= 1024 and 0 < size[1] < math.inf, "rank_pattern", rule,
                "Write it as in attn2 = 32; ff = 8:4, with ranks from 1 to 1024 and alphas above 0.")
        rules.append((_expression("rank_pattern", rf"(.*\.)?({pattern.strip()})"), *size))
    return rules


def _expression(name: str, pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise AtelierError(f"{name} is {pattern!r}, which is no regular expression ({error}).",
                           r"Write it in Python's form, such as .*attn2\.to_[kv].") from error
