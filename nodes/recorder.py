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
    """Latents of one step on CPU, first of the batch only: `[1, C, h, w]`, scaled as the host's LATENT unless said."""

    index: int
    sigma: float
    timestep: float | None
    prediction: torch.Tensor
    noisy: torch.Tensor
    """Scaled to the spread of a clean latent, as the UNet sees it."""
    guidance: torch.Tensor | None
    """The noise predicted with the prompt minus that without, in the model's own scale, where the noise has a standard
    deviation of 1; None without guidance."""


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
        self._answers: list[dict[str, Any]] = []
        """What the model said since the last report, as the host hands it to functions after guidance."""
        self.steps: list[Recorded] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._guider, name)

    def sample(self, *args: Any, callback: Any = None, **kwargs: Any) -> torch.Tensor:
        """Sample with the guider's own method; its options are as before afterwards."""
        def watched(step: int, prediction: torch.Tensor, noisy: torch.Tensor, total: int) -> None:
            if step in self._wanted:
                self._keep(step, prediction, noisy)
            self._answers = []
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
        self._answers.append(args)
        return args["denoised"]

    def _keep(self, step: int, prediction: torch.Tensor, noisy: torch.Tensor) -> None:
        model = self._guider.model_patcher.model
        # Solvers of higher order ask the model several times a step, at noise levels between, some before and some
        # after they report the step. Its own answer is the one that they report as the prediction.
        own: dict[str, Any] = min(self._answers, default={},
                                  key=lambda args: float((args["denoised"] - prediction).abs().sum()))
        # A guider of another kind may not pass by `_after_guidance`; then the plan says the noise level.
        sigma = own.get("sigma", self._sigmas[min(step, len(self._sigmas) - 1)]).flatten()[:1].float()
        # Some solvers report the latent after the step.
        noisy = own.get("input", noisy)
        sampling = model.model_sampling
        timestep = float(sampling.timestep(sigma))
        difference = None
        if own.get("uncond") is not None:  # at cfg 1 the host asks for nothing and hands on zeros
            # A clean picture is the noisy one less sigma times the noise.
            clean = own["uncond_denoised"] - own["cond_denoised"]
            difference = clean[:1].float().cpu() / sigma.item()
        seen = sampling.calculate_input(sigma.to(noisy.device), noisy[:1])
        # Models of continuous time count otherwise, some below zero.
        self.steps.append(Recorded(step, sigma.item(), timestep if timestep >= 0 else None,
                                   _scaled(model, prediction), _scaled(model, seen), difference))


def _scaled(model: Any, latent: torch.Tensor) -> torch.Tensor:
    return model.process_latent_out(latent[:1].float().cpu())
