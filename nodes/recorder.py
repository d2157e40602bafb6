"""Watch the host's own sampling from inside: what the model predicts at each step, and what guidance adds.

The sampling itself is the host's node, given a guider that looks on; so its result is that node's result.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Any

import torch
from comfy_extras.nodes_custom_sampler import SamplerCustomAdvanced

from ..atelier.errors import AtelierError


@dataclass(frozen=True)
class Recorded:
    """Latents of one step on CPU, scaled as the host's LATENT, first of the batch only: `[1, C, h, w]`."""

    index: int
    sigma: float
    timestep: float | None
    prediction: torch.Tensor
    noisy: torch.Tensor
    """Scaled to the spread of a clean latent, as the UNet sees it."""
    guidance: torch.Tensor | None
    """Conditional minus unconditional prediction; None without guidance."""


def sample(noise: Any, guider: Any, sampler: Any, sigmas: torch.Tensor, latent: dict[str, Any],
           wanted: Container[int]) -> tuple[dict[str, Any], dict[str, Any], list[Recorded]]:
    """The host's SamplerCustomAdvanced, with the steps in `wanted` recorded.

    Returns:
        Its two outputs, and the recorded steps in order.
    """
    if latent["samples"].is_nested:
        raise AtelierError("The latent holds several parts (such as picture and sound).",
                           "Use a latent of pictures only.")
    recorder = _Recorder(guider, sigmas, wanted)
    done, denoised = SamplerCustomAdvanced.execute(noise, recorder, sampler, sigmas, latent).result
    return done, denoised, recorder.steps


class _Recorder:
    """A guider that passes everything on to another and keeps what comes by."""

    def __init__(self, guider: Any, sigmas: torch.Tensor, wanted: Container[int]) -> None:
        self._guider, self._sigmas, self._wanted = guider, sigmas, wanted
        self._latest: dict[str, Any] = {}
        self.steps: list[Recorded] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._guider, name)

    def sample(self, *args: Any, callback: Any = None, **kwargs: Any) -> torch.Tensor:
        """Sample with the guider's own method; its options are as before afterwards."""
        def watched(step: int, prediction: torch.Tensor, noisy: torch.Tensor, total: int) -> None:
            if step in self._wanted:
                self._keep(step, prediction, noisy)
            self._latest = {}
            if callback is not None:
                callback(step, prediction, noisy, total)

        options = self._guider.model_options
        after = [*options.get("sampler_post_cfg_function", ()), self._after_guidance]
        self._guider.model_options = {**options, "sampler_post_cfg_function": after}
        try:
            return self._guider.sample(*args, callback=watched, **kwargs)
        finally:
            self._guider.model_options = options

    def _after_guidance(self, args: dict[str, Any]) -> torch.Tensor:
        # Solvers of higher order ask the model several times a step; the first time is at the step's own noise level.
        self._latest = self._latest or args
        return args["denoised"]

    def _keep(self, step: int, prediction: torch.Tensor, noisy: torch.Tensor) -> None:
        model, latest = self._guider.model_patcher.model, self._latest
        # A guider of another kind may not pass by `_after_guidance`; then the plan says the noise level.
        sigma = latest.get("sigma", self._sigmas[min(step, len(self._sigmas) - 1)]).flatten()[:1].float()
        sampling = model.model_sampling
        timestep = float(sampling.timestep(sigma))
        difference = None
        if latest.get("uncond") is not None:  # at cfg 1 the host asks for nothing and hands on zeros
            difference = _scaled(model, latest["cond_denoised"] - latest["uncond_denoised"])
        seen = sampling.calculate_input(sigma.to(noisy.device), noisy[:1])
        # Models of continuous time count otherwise, some below zero.
        self.steps.append(Recorded(step, sigma.item(), timestep if timestep >= 0 else None,
                                   _scaled(model, prediction), _scaled(model, seen), difference))


def _scaled(model: Any, latent: torch.Tensor) -> torch.Tensor:
    return model.process_latent_out(latent[:1].float().cpu())
