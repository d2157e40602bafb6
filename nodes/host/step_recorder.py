"""Record the steps of the host's own sampling: what the model predicts at each step, and what guidance adds.

The host's node does the sampling with a guider that records; so the result is exactly that of the node.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Any

import torch
from comfy_extras.nodes_custom_sampler import SamplerCustomAdvanced

from ...atelier.errors import AtelierError


@dataclass(frozen=True, kw_only=True)
class RecordedStep:
    """Latents of one step, on CPU, of the first picture of the batch: `[1, C, h, w]`, in the scale of the host's LATENT
    unless stated otherwise."""

    index: int
    sigma: float
    timestep: float | None
    prediction: torch.Tensor
    noisy: torch.Tensor
    """Scaled to the standard deviation of a clean latent, as the UNet gets it."""
    guidance: torch.Tensor | None
    """Conditional minus unconditional noise prediction, in the model's scale, where noise has a standard deviation of
    1; None without guidance."""


def sample(noise: Any, guider: Any, sampler: Any, sigmas: torch.Tensor, latent: dict[str, Any],
           record: Container[int]) -> tuple[dict[str, Any], dict[str, Any], list[RecordedStep]]:
    """Run the host's SamplerCustomAdvanced and record the steps whose index is in `record`.

    Returns:
        Its two outputs, and the recorded steps in order.

    Raises:
        AtelierError: the latent is nested.
    """
    if latent["samples"].is_nested:
        raise AtelierError("The latent holds several parts (such as picture and sound).",
                           "Use a latent of pictures only.")
    recorder = _RecordingGuider(guider, sigmas, record)
    done, denoised = SamplerCustomAdvanced.execute(noise, recorder, sampler, sigmas, latent).result
    return done, denoised, recorder.steps


class _RecordingGuider:
    """A guider that forwards everything to another one and records what the model returns."""

    def __init__(self, guider: Any, sigmas: torch.Tensor, record: Container[int]) -> None:
        self._guider, self._sigmas, self._record = guider, sigmas, record
        self._results: list[dict[str, Any]] = []
        """Model results since the last callback, as the host passes them to `sampler_post_cfg_function`."""
        self.steps: list[RecordedStep] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._guider, name)

    def sample(self, *args: Any, callback: Any = None, **kwargs: Any) -> torch.Tensor:
        """Sample with the guider's own method, and restore its options afterwards."""
        def record_step(step: int, prediction: torch.Tensor, noisy: torch.Tensor, total: int) -> None:
            if step in self._record:
                self._add_step(step, prediction, noisy)
            self._results = []
            if callback is not None:
                callback(step, prediction, noisy, total)

        options = self._guider.model_options
        after = [*options.get("sampler_post_cfg_function", ()), self._after_cfg]
        self._guider.model_options = {**options, "sampler_post_cfg_function": after}
        try:
            return self._guider.sample(*args, callback=record_step, **kwargs)
        finally:
            self._guider.model_options = options

    def _after_cfg(self, args: dict[str, Any]) -> torch.Tensor:
        self._results.append(args)
        return args["denoised"]

    def _add_step(self, step: int, prediction: torch.Tensor, noisy: torch.Tensor) -> None:
        model = self._guider.model_patcher.model
        # Higher-order solvers call the model several times a step, at intermediate noise levels, some before and some
        # after the callback. The step's own result is the one that they pass to the callback as the prediction.
        own: dict[str, Any] = min(self._results, default={},
                                  key=lambda args: float((args["denoised"] - prediction).abs().sum()))
        # Another kind of guider may never call `_after_cfg`; then the schedule gives the noise level.
        sigma = own.get("sigma", self._sigmas[min(step, len(self._sigmas) - 1)]).flatten()[:1].float()
        # Some solvers pass the latent after the step to the callback.
        noisy = own.get("input", noisy)
        sampling = model.model_sampling
        timestep = float(sampling.timestep(sigma))
        guidance = None
        if own.get("uncond") is not None:  # at cfg 1 the host skips the unconditional call and passes zeros
            # prediction = noisy - sigma * noise, so a difference of predictions is -sigma times that of the noise.
            scaled = own["uncond_denoised"] - own["cond_denoised"]
            guidance = scaled[:1].float().cpu() / sigma.item()
        model_input = sampling.calculate_input(sigma.to(noisy.device), noisy[:1])
        # Models with continuous time use other timesteps, some negative.
        self.steps.append(RecordedStep(
            index=step, sigma=sigma.item(), timestep=timestep if timestep >= 0 else None,
            prediction=_to_latent_scale(model, prediction), noisy=_to_latent_scale(model, model_input),
            guidance=guidance))


def _to_latent_scale(model: Any, latent: torch.Tensor) -> torch.Tensor:
    return model.process_latent_out(latent[:1].float().cpu())
