"""One optimiser step, and one validation, of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..dataset.cache import EncodedSet
from ..models.text import TextBatch, TextStack
from .adapters import Adapters
from .batch_loader import BatchLoader, TrainBatch
from .bucket_sampler import Batch, BucketSampler, SampleUse, derived_seed, groups, steps_per_epoch
from .compiled_unet import CompiledUNet
from .early_stopping import ValidationPlan
from .mkldnn_prepack import prepack_frozen
from .objective import Objective, squared_error
from .optimizers import make_optimizer, rate_factor, set_rate, update_average
from .request.request import TrainRequest

if TYPE_CHECKING:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

FP16_LOSS_SCALE = 2.0 ** 16
"""float16 gradients of a LoRA are often below its smallest number; the loss is multiplied by this first."""


@dataclass(frozen=True)
class StepResult:
    """The outcome of one optimiser step. The tensors are scalars on the device: reading them waits for it."""

    loss: Tensor
    """Mean loss of the step's batches."""
    finite: Tensor
    """Whether loss and gradients were finite."""
    loss_scale: float
    """Loss scale of the next step."""


@dataclass(frozen=True)
class Parts:
    """The loaded components a run works with."""

    unet: UNet2DConditionModel
    scheduler_config: Mapping[str, Any]
    text: TextStack | None
    """Only when the text encoder is trained; otherwise its output comes from the cache."""
    device: torch.device
    dtype: torch.dtype
    """Of the frozen weights and the arithmetic."""


class Trainer:
    """The trained weights and their optimiser: one step and one validation. `atelier.train.loop.Loop` drives it.

    Args:
        parts: Loaded components. Adapters are put on them here.
        data: The encoded training set.
        request: What to train.
    """

    def __init__(self, parts: Parts, data: EncodedSet, request: TrainRequest) -> None:
        self.parts, self.request, self.device = parts, request, parts.device
        components = {"unet": parts.unet, **(parts.text.encoders if parts.text else {})}
        self.adapters = Adapters(components, request.lora, request.seed)
        if request.device.compile == "off":  # the compiler arranges weights itself
            prepack_frozen(parts.unet)
        self.unet = CompiledUNet(parts.unet, request.device.compile == "on")
        self.optimizer = make_optimizer(self.adapters.names, self.adapters.masters, request.optimizer)
        self.objective = Objective.of(parts.scheduler_config, parts.device, min_snr_gamma=request.loss.min_snr_gamma)
        self.loader = BatchLoader(data, parts.device, parts.dtype, prior_weight=request.loss.prior_weight,
                                  live_text=parts.text is not None,
                                  size_ids=parts.unet.config.get("addition_embed_type") == "text_time")
        self.validation = ValidationPlan.of(data.items, request)
        held_out = {use.index for use in self.validation.uses} if self.validation.held_out else set()
        self.sampler = BucketSampler(tuple(item for item in data.items if item.index not in held_out),
                                     request.optimizer.batch_size, request.seed, request.captions.caption_dropout)
        self.steps_per_epoch = steps_per_epoch(self.sampler, request.optimizer.gradient_accumulation)
        self.total = request.steps or request.epochs * self.steps_per_epoch
        self.average: list[Tensor] | None = self.adapters.snapshot() if request.optimizer.ema_decay else None
        self._epoch: tuple[int, list[list[Batch]]] = (-1, [])

    @property
    def initial_loss_scale(self) -> float:
        """The loss scale of the first step: 1 but in float16."""
        return FP16_LOSS_SCALE if self.parts.dtype == torch.float16 else 1.0

    @property
    def current(self) -> list[Tensor]:
        """The weights of a LoRA written now: the running average where there is one, else the masters."""
        return self.average if self.average is not None else self.adapters.masters

    @property
    def learning_rate(self) -> float:
        """The learning rate of the last step."""
        return self.optimizer.param_groups[0]["lr"]

    def state_dict(self) -> dict[str, Any]:
        """Weights, their running average and the optimiser's state, as references."""
        return {"weight": self.adapters.masters, "average": self.average or [],
                "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to what `state_dict` returned of a trainer of the same request."""
        self.adapters.load(state["weight"])
        self.average = [tensor.to(self.device, torch.float32) for tensor in state["average"]] or None
        self.optimizer.load_state_dict(state["optimizer"])

    def train_step(self, step: int, loss_scale: float) -> StepResult:
        """Do the optimiser step after `step` others."""
        optimizer = self.request.optimizer
        self.adapters.train(True)
        try:
            total = self._accumulate(step, loss_scale)
        except self.unet.errors() as error:
            self.unet.give_up(error)
            prepack_frozen(self.parts.unet)  # as a run that is not to be compiled does from the start
            self.adapters.drop_gradients()
            total = self._accumulate(step, loss_scale)  # draws the same numbers: each batch has a stream of its own
        masters = self.adapters.masters
        norm = torch.nn.utils.clip_grad_norm_(masters, optimizer.max_grad_norm or float("inf"))
        finite = norm.isfinite() & total.isfinite()
        if loss_scale > 1 and not finite:
            loss_scale /= 2  # float16 only: the scaled loss overflowed; this step changes nothing
            finite = total.isfinite()
        else:
            set_rate(self.optimizer, rate_factor(step, self.total, optimizer))
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.adapters.sync_to_model()
        if self.average is not None:
            update_average(self.average, masters, optimizer.ema_decay, step + 1)
        return StepResult(total, finite, loss_scale)

    def _accumulate(self, step: int, loss_scale: float) -> Tensor:
        """Accumulate the gradients of the step's batches in the masters; returns the mean loss."""
        batches = self._batches(step)
        total = torch.zeros((), device=self.device)
        for index, batch in enumerate(batches):
            loss = self._loss(self.loader(batch), derived_seed("step", self.request.seed, step, index))
            (loss * (loss_scale / len(batches))).backward()
            self.adapters.accumulate_gradients(1 / loss_scale)
            total += loss.detach() / len(batches)
        return total

    @torch.no_grad()
    def validate(self, check: Callable[[], None] = lambda: None) -> float:
        """Mean loss on fixed pictures, noise and timesteps, without dropout or loss weighting; masks count.

        Args:
            check: Called before each forward pass; what it raises ends the validation and changes nothing.
        """
        self.adapters.train(False)
        kept = self.adapters.snapshot()
        if self.average is not None:
            self.adapters.load(self.average)
        try:
            losses = []
            for use, timesteps, seeds in self.validation.batches(self.objective.timesteps):
                check()
                losses.append(self._validation_losses(use, timesteps, seeds))
        finally:
            if self.average is not None:
                self.adapters.load(kept)
        return torch.cat(losses).mean().item()

    def _validation_losses(self, use: SampleUse, timesteps: list[int], seeds: list[int]) -> Tensor:
        """The losses of one picture at these timesteps, each with its own noise."""
        inputs = self.loader((use,) * len(seeds))
        noise = torch.cat([self._noise(inputs.mean[:1], seed) for seed in seeds])
        t = torch.tensor(timesteps, device=self.device)
        # The plain UNet: other batches without dropout would only be compiled once more.
        prediction = self._predict(self.parts.unet, inputs, self.objective.noisy(inputs.mean, noise, t), t)
        return squared_error(prediction, self.objective.target(inputs.mean, noise, t), inputs.mask)

    def _loss(self, inputs: TrainBatch, seed: int) -> Tensor:
        stream = torch.Generator(self.device).manual_seed(seed)
        shape, noise_offset = inputs.mean.shape, self.request.loss.noise_offset

        def normal(*size: int) -> Tensor:
            return torch.randn(size, generator=stream, device=self.device)

        latents = inputs.mean + inputs.std * normal(*shape)
        noise = normal(*shape)
        if noise_offset:
            noise = noise + noise_offset * normal(*shape[:2], 1, 1)
        t = torch.randint(self.objective.timesteps, shape[:1], generator=stream, device=self.device)
        if self.request.lora.dropout:
            torch.manual_seed(seed)  # PEFT's dropout draws from the global stream, which `Loop` restores
        prediction = self._predict(self.unet, inputs, self.objective.noisy(latents, noise, t), t)
        return self.objective.loss(prediction, self.objective.target(latents, noise, t), t, weights=inputs.weights,
                                   mask=inputs.mask)

    def _predict(self, unet: Callable[..., Any], inputs: TrainBatch, noisy: Tensor, t: Tensor) -> Tensor:
        text = inputs.text if self.parts.text is None else self._encode(inputs.captions)
        assert text is not None
        added = None
        if text.pooled is not None:
            added = {"text_embeds": text.pooled, "time_ids": inputs.time_ids}
        return unet(noisy.to(self.parts.dtype), t, text.embeds, added_cond_kwargs=added, return_dict=False)[0]

    def _encode(self, captions: tuple[str, ...]) -> TextBatch:
        assert self.parts.text is not None
        return self.parts.text.encode(captions)

    def _noise(self, like: Tensor, seed: int) -> Tensor:
        # Drawn on the CPU: validation noise is the same on every device.
        return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed)).to(self.device)

    def _batches(self, step: int) -> list[Batch]:
        epoch, index = divmod(step, self.steps_per_epoch)
        if self._epoch[0] != epoch:
            self._epoch = (epoch, groups(self.sampler.epoch(epoch), self.request.optimizer.gradient_accumulation))
        batches = self._epoch[1]
        return batches[index % len(batches)]
