"""One optimiser step, and one validation, of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..dataset.cache import EncodedSet
from ..progress import Progress
from .adapters import Adapters
from .batch_cut import BatchCut
from .batch_loader import BatchLoader
from .bucket_sampler import Batch, BucketSampler, SampleUse, derived_seed, groups, steps_per_epoch
from .captured_step import CapturedSteps
from .compiled_unet import CompiledUNet, pieces, sizes_left_out
from .cuda_graphs import CudaGraphs, Graphs, device_obstacle, step_obstacle
from .denoiser import Denoiser
from .early_stopping import ValidationPlan
from .fused_adapters import drop_divisions, fuse_adapters
from .loss_inputs import LossInputs
from .loss_scale import LossScale
from .mkldnn_prepack import prepack_frozen
from .nested_state import restore
from .optimizers import make_optimizer, rate_factor, reads_of, set_rate, step_where, update_average
from .preservation import drift
from .processes import ALONE, Processes
from .random_state import random_stream
from .request.request import TrainRequest
from .shared_gradients import add_up_gradients
from .warm_start import start_from


@dataclass(frozen=True)
class StepResult:
    """The outcome of one optimiser step. The tensors are scalars on the device: reading them waits for it."""

    loss: Tensor
    """Mean loss of the step's batches."""
    finite: Tensor
    """Whether loss and gradients were finite, or an overflow of float16 is all that they had."""
    loss_scale: LossScale
    """Of the next step."""


class Trainer:
    """The trained weights and their optimiser: one step and one validation. `atelier.train.loop.Loop` drives it.

    Args:
        denoiser: The loaded model. Adapters are put on it here.
        data: The encoded training set.
        request: What to train. Its batch is that of all processes together.
        processes: Which train together. Their weights stay equal to the last bit: each starts with the same, and takes
            the same optimiser steps with the sum of all gradients.
        at_once: Pictures that go through the network together at most, if not the whole share of a process.
        progress: Shown progress, and asked to stop, while the adapters are made.
        graphs: What records passes instead of the device's CUDA graphs.

    Raises:
        Interrupted: (or what else `progress` raises) the model is of no further use.
    """

    def __init__(self, denoiser: Denoiser, data: EncodedSet, request: TrainRequest, processes: Processes = ALONE, *,
                 at_once: int = 0, progress: Progress | None = None, graphs: Graphs | None = None) -> None:
        self.denoiser, self.request, self.device = denoiser, request, denoiser.device
        self.processes = processes
        self.cut = BatchCut(at_once=at_once or request.optimizer.batch_size, rank=processes.rank,
                            count=processes.count)
        self.adapters = Adapters(denoiser.components, request.lora, request.seed,
                                 layers=denoiser.adapted_layers(request.lora), dtype=denoiser.dtype,
                                 device=denoiser.device, progress=progress)
        if request.lora.init_lora:
            start_from(self.adapters, Path(request.lora.init_lora))
        if request.device.compile == "off":  # the compiler arranges weights and fuses kernels itself
            self._arrange()
        self.unet = CompiledUNet(denoiser.network, request.device.compile == "on")
        self.optimizer = make_optimizer(self.adapters.names, self.adapters.masters, request.optimizer)
        self.objective = denoiser.objective(request.loss, request.levels)
        self.loader = BatchLoader(data, denoiser.device, denoiser.dtype, prior_weight=request.loss.prior_weight,
                                  cached_text=not denoiser.encodes_captions)
        wanted, self._obstacle = request.device.cuda_graphs, step_obstacle(request, denoiser, processes)
        if graphs is None:
            self._obstacle = self._obstacle or device_obstacle(self.device)
            graphs = CudaGraphs(self.device) if wanted != "off" and not self._obstacle else None
        self.captured = CapturedSteps(self._plain_loss, self.adapters,
                                      None if self._obstacle or wanted == "off" else graphs,
                                      always=wanted == "on")
        self.validation = ValidationPlan.of(data.items, request, self.cut.at_once)
        held_out = {use.index for use in self.validation.uses} if self.validation.held_out else set()
        self.sampler = BucketSampler(tuple(item for item in data.items if item.index not in held_out),
                                     request.optimizer.batch_size, request.seed, request.captions.caption_dropout)
        self.steps_per_epoch = steps_per_epoch(self.sampler, request.optimizer.gradient_accumulation)
        self.total = request.steps or request.epochs * self.steps_per_epoch
        self.average: list[Tensor] | None = self.adapters.snapshot() if request.optimizer.ema_decay else None
        self._epoch: tuple[int, list[list[Batch]]] = (-1, [])

    def _arrange(self) -> None:
        """Have the network compute in the way that suits the device: a processor is given weights in its kernels'
        layout, and a card fewer kernels."""
        prepack_frozen(self.denoiser.network)  # does nothing elsewhere than on a processor
        if self.device.type == "cuda":  # and ROCm; other devices' kernels were not tried
            for component in self.denoiser.components.values():
                fuse_adapters(component)
                drop_divisions(component)

    @property
    def notes(self) -> tuple[str, ...]:
        """For the report: what makes steps slower than one would expect."""
        found = (reads_of(self.request.optimizer, len(self.adapters.masters), self.device),
                 sizes_left_out(len(self._shapes)) if self.unet.compiled else "",
                 pieces(self.request.lora.kind) if self.unet.compiled else "",
                 f"There are no CUDA graphs: {self._obstacle}."
                 if self._obstacle and self.request.device.cuda_graphs == "on" else "")
        return tuple(sentence for sentence in found if sentence)

    @property
    def _shapes(self) -> set[tuple[int, ...]]:
        """Pictures, height and width of the forward passes of an epoch."""
        items = self.loader.data.items
        return {(piece.stop - piece.start, items[batch[0].index].height, items[batch[0].index].width)
                for batch in self.sampler.epoch(0) for piece in self.cut.pieces(len(batch))}

    @property
    def began_with(self) -> int:
        """The number of processes that the run was begun by: its batches are so many times those asked for."""
        return max(1, self.request.optimizer.batch_size // self.cut.at_once)

    @property
    def initial_loss_scale(self) -> LossScale:
        """The loss scale of the first step: 1 but in float16."""
        return LossScale.of(self.denoiser.dtype, self.device)

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
        restore(self.optimizer, state["optimizer"])

    def train_step(self, step: int, loss_scale: LossScale) -> StepResult:
        """Do the optimiser step after `step` others."""
        optimizer = self.request.optimizer
        self.adapters.train(True)
        with self.processes.together():
            total = self._gradients(step, loss_scale)
        masters = self.adapters.masters
        total = add_up_gradients(self.processes, masters, total)
        norm = torch.nn.utils.clip_grad_norm_(masters, optimizer.max_grad_norm or float("inf"))
        finite = norm.isfinite() & total.isfinite()
        set_rate(self.optimizer, rate_factor(step, self.total, optimizer))
        if loss_scale.on:
            step_where(finite, self.optimizer)  # a step whose gradients overflowed changes nothing
            finite, loss_scale = total.isfinite() & (finite | ~loss_scale.exhausted), loss_scale.after(finite)
        else:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.adapters.sync_to_model()
        if self.average is not None:
            update_average(self.average, masters, optimizer.ema_decay, step + 1)
        return StepResult(total, finite, loss_scale)

    def drop_step(self, step: int) -> None:
        """Forget what a step that failed after `step` others left behind: its gradients, and the optimiser's state if
        the step was to begin it."""
        self.adapters.drop_gradients()
        if not step:
            self.optimizer.state.clear()

    def _gradients(self, step: int, loss_scale: LossScale) -> Tensor:
        """`_accumulate`, once more without the compiler where that fails."""
        try:
            return self._accumulate(step, loss_scale)
        except self.unet.errors() as error:
            self.unet.give_up(error)
            self._arrange()  # as a run that is not to be compiled does from the start
            self.adapters.drop_gradients()
            return self._accumulate(step, loss_scale)  # draws the same numbers: each batch has a stream of its own

    def _accumulate(self, step: int, loss_scale: LossScale) -> Tensor:
        """Accumulate the gradients of this process's part of the step's batches in the masters; returns its part of
        their mean loss."""
        batches = self._batches(step)
        total = torch.zeros((), device=self.device)
        inverse = 1 / loss_scale.value if loss_scale.on else None
        for index, batch in enumerate(batches):
            seed = derived_seed("step", self.request.seed, step, index)
            for piece in self.cut.pieces(len(batch)):
                share = (piece.stop - piece.start) / len(batch)
                inputs = self._inputs(batch, piece, seed)
                replayed = self.captured(inputs, share / len(batches), loss_scale)
                if replayed is not None:
                    total += replayed * share / len(batches)
                    continue
                for loss in self._losses(inputs, batch[piece]):
                    scaled = loss * loss_scale.value if loss_scale.on else loss
                    (scaled * (share / len(batches))).backward()
                    self.adapters.accumulate_gradients(inverse)
                    total += loss.detach() * share / len(batches)
        return total

    @torch.no_grad()
    def validate(self, check: Callable[[], None] = lambda: None) -> float:
        """Mean loss on fixed pictures, noise and timesteps, without dropout or loss weighting; masks count.

        Args:
            check: Called before each forward pass; what it raises ends the validation and changes nothing.
        """
        self.adapters.train(False)
        batches = list(self.validation.batches(self.objective.fixed_levels(self.validation.timesteps)))
        losses: list[Tensor] = []
        with self.adapters.replaced(self.average), self.processes.together():
            for use, levels, seeds in batches[self.processes.rank::self.processes.count]:
                check()
                losses.append(self._validation_losses(use, levels, seeds))
        if self.processes.count > 1:
            losses = self._losses_of_all(losses)
        return torch.cat(losses).mean().item()

    def _losses_of_all(self, own: list[Tensor]) -> list[Tensor]:
        """The losses of all validation batches in their order; each process has every `count`-th."""
        found = self.processes.exchange([losses.tolist() for losses in own])
        number = sum(map(len, found))
        return [torch.tensor(found[index % self.processes.count][index // self.processes.count])
                for index in range(number)]

    def _validation_losses(self, use: SampleUse, at: list[float], seeds: list[int]) -> Tensor:
        """The losses of one picture at these noise levels, each with its own noise."""
        loaded = self.loader((use,) * len(seeds))
        noise = torch.cat([self._noise(loaded.mean[:1], seed) for seed in seeds])
        levels = torch.tensor(at, device=self.device)
        # The plain network: other batches without dropout would only be compiled once more.
        prediction = self.denoiser.predict(self.denoiser.network, self.objective.noisy(loaded.mean, noise, levels),
                                           levels, loaded.conditions, loaded.captions)
        return self.objective.errors(prediction, self.objective.target(loaded.mean, noise, levels), levels, loaded.mask)

    def _inputs(self, batch: Batch, piece: slice, seed: int) -> LossInputs:
        """A piece of a batch, noisy. Random numbers are drawn for the whole batch, so that a picture gets the same ones
        however the batch is cut."""
        loaded = self.loader(batch[piece])
        stream = random_stream(self.device, seed)
        shape, noise_offset = (len(batch), *loaded.mean.shape[1:]), self.request.loss.noise_offset

        def normal(*size: int) -> Tensor:
            return torch.randn(size, generator=stream, device=stream.device)[piece].to(self.device)

        latents = loaded.mean + loaded.std * normal(*shape)
        noise = normal(*shape)
        if noise_offset:
            noise = noise + noise_offset * normal(*shape[:2], *[1] * (len(shape) - 2))
        levels = self.objective.draw_levels(len(batch), stream, (shape[-2], shape[-1]))[piece].to(self.device)
        if self.request.lora.dropout or self.request.lora.rank_dropout:
            # PEFT's dropout draws from the global stream, which `Loop` restores; other pieces, other masks.
            torch.manual_seed(derived_seed("dropout", seed, piece.start) if piece.start else seed)
        return LossInputs(noisy=self.objective.noisy(latents, noise, levels),
                          target=self.objective.target(latents, noise, levels), levels=levels, weights=loaded.weights,
                          mask=loaded.mask, conditions=loaded.conditions, captions=loaded.captions)

    def _losses(self, inputs: LossInputs, batch: Batch) -> Iterator[Tensor]:
        """The parts of the mean loss of `batch`. A part is computed once the gradients of the one before were taken:
        what autograd keeps is there for one pass at a time."""
        yield self._plain_loss(inputs)
        held = self.loader.class_of(batch) if self.request.preservation else None
        if held is not None:
            far = drift(self.denoiser, self.unet, self.objective, self.adapters, held, inputs.noisy, inputs.levels)
            yield self.request.preservation * far

    def _plain_loss(self, inputs: LossInputs) -> Tensor:
        prediction = self.denoiser.predict(self.unet, inputs.noisy, inputs.levels, inputs.conditions, inputs.captions)
        return self.objective.loss(prediction, inputs.target, inputs.levels, weights=inputs.weights, mask=inputs.mask)

    def _noise(self, like: Tensor, seed: int) -> Tensor:
        # Drawn on the CPU: validation noise is the same on every device.
        return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed)).to(self.device)

    def _batches(self, step: int) -> list[Batch]:
        epoch, index = divmod(step, self.steps_per_epoch)
        if self._epoch[0] != epoch:
            self._epoch = (epoch, groups(self.sampler.epoch(epoch), self.request.optimizer.gradient_accumulation))
        batches = self._epoch[1]
        return batches[index % len(batches)]
