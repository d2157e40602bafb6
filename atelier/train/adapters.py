"""PEFT adapters on frozen components, with float32 master weights beside them.

The frozen weights and the arithmetic may be bfloat16 or float16; the adapters in the module then have that type too,
so that no layer casts anything, and the optimiser works on float32 copies of them. In float32 the copies are the
parameters themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import AtelierError
from ..lora.names import canonical
from ..lora.weights import Adapter, LoraModule, LoraWeights
from ..progress import Progress
from .adapter_kinds import (
    ADAPTER,
    adapter_of,
    inject,
    normal_spread,
    part_of,
    settle,
    split,
    starts_at_zero,
)
from .bucket_sampler import derived_seed
from .principal_start import learnt, principal_part, subtract_start
from .request.lora import DEFAULT_START, LoraConfig, layer_pattern


def put_adapters(component: str, module: nn.Module, config: LoraConfig, layers: str, dtype: torch.dtype,
                 device: torch.device | None = None) -> list[tuple[str, nn.Parameter]]:
    """Freeze a module and wrap some of its layers.

    Args:
        component: Its name, for messages.
        module: Changed in place; may be on the meta device.
        config: Rank, alpha and kind.
        layers: PEFT's `target_modules`: a pattern that the whole path of a layer matches.
        dtype: The arithmetic type. Frozen weights may be stored in another one, such as float8.
        device: Where the module computes, if some of its weights wait elsewhere.

    Returns:
        The new parameters by name, in `dtype`, with the initial values that PEFT draws.

    Raises:
        AtelierError: no layer matches `layers`.
    """
    first = next(module.parameters())
    module.requires_grad_(False)
    wanted = re.compile(layers)
    sizes = {f"^{re.escape(path)}": config.size(_layer_path(f"{component}.{path}"))
             for path, _ in module.named_modules() if config.rank_pattern and wanted.fullmatch(path)}
    try:
        with torch.random.fork_rng(devices=[]):  # initial values are drawn, but not from the caller's stream
            inject(module, config, layers, sizes)
    except ValueError as error:
        raise AtelierError(f"No layer of the {component} matches the targets "
                           f"{config.target_pattern or config.targets!r}.",
                           "Choose other targets; this model may lack attention layers.") from error
    except TypeError as error:  # a layer of a type or size that there is no adapter of this kind for
        raise AtelierError(f"Some of the chosen layers of the {component} cannot have an adapter of kind "
                           f"{config.kind!r} ({error}).", "Choose other targets, or kind lora.") from error
    settle(module)
    parameters = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
    for _, parameter in parameters:
        parameter.data = parameter.data.to(device or first.device, dtype)
    if config.rank_dropout:
        for name, layer in module.named_modules():
            if name.endswith(f".lora_A.{ADAPTER}"):
                layer.register_forward_hook(partial(_drop_ranks, config.rank_dropout))
    return parameters


def _drop_ranks(share: float, layer: nn.Module, inputs: object, output: Tensor) -> Tensor:
    """The output of a layer's A without a random share of its ranks, drawn for each picture of the batch anew and made
    up for by the others."""
    if not layer.training:
        return output
    ranks = 1 if isinstance(layer, nn.Conv2d) else output.dim() - 1
    shape = [size if axis in (0, ranks) else 1 for axis, size in enumerate(output.shape)]
    return output * (torch.rand(shape, device=output.device) >= share) / (1 - share)


def _own(part: Tensor, role: str, master: Tensor) -> Tensor:
    """A tensor of a file in the shape of its master, without the start that stands behind it."""
    if part.numel() == 2 * master.numel():
        part = part[:, :master.shape[1]] if role == "lora_B" else part[:len(master)]
    return part.reshape(master.shape)


def _layer_path(name: str) -> str:
    """The path of a layer within its component, as users write it."""
    return canonical(name).split(".", 1)[1]


class Adapters:
    """The trainable part of a run.

    Args:
        components: Modules by component name ("unet", "text_encoder", …), on their device, in their arithmetic type.
            They are frozen, and their layers named by the configuration are wrapped.
        config: Rank, alpha, layers.
        seed: Of the initial A matrices; B starts at zero, so the untrained adapter changes nothing.
        layers: A pattern of each component's layers, where they are not diffusers' UNet and CLIP.
        dtype: The arithmetic type, where the weights are stored in another one.
        device: Where the components compute, if some of their weights wait elsewhere.
        progress: Shown progress, and asked to stop, where A and B start from the weights: minutes for a large network.

    Raises:
        AtelierError: no layer of a component matches the chosen targets.
        Interrupted: (or what else `progress` raises) the components are of no further use.
    """

    def __init__(self, components: Mapping[str, nn.Module], config: LoraConfig, seed: int, *,
                 layers: Mapping[str, str] | None = None, dtype: torch.dtype | None = None,
                 device: torch.device | None = None, progress: Progress | None = None) -> None:
        self.config = config
        self.components = dict(components)
        layers = layers or {component: layer_pattern(component, config) for component in components}
        self.names: list[str] = []
        self.parameters: list[nn.Parameter] = []
        for component, module in self.components.items():
            arithmetic = dtype or next(module.parameters()).dtype
            for name, parameter in put_adapters(component, module, config, layers[component], arithmetic, device):
                self.names.append(f"{component}.{name}")
                self.parameters.append(parameter)
        self.masters: list[Tensor] = [
            p if p.dtype == torch.float32 else p.detach().float().requires_grad_() for p in self.parameters]
        self._starts: dict[str, Tensor] = {}
        self._init(seed)
        if config.init_weights != DEFAULT_START:
            self._start_from_weights(progress or Progress())

    @torch.no_grad()
    def damaged_weight(self) -> str:
        """A frozen weight that holds NaN or infinite values, such as "conv_in.weight of the unet"; "" if none does."""
        own = {id(parameter) for parameter in self.parameters}
        for component, module in self.components.items():
            for name, weight in module.named_parameters():
                # By way of float32: torch cannot ask this of eight-bit numbers.
                if id(weight) not in own and not bool(torch.isfinite(weight.float()).all()):
                    return f"{name.replace('.base_layer.', '.')} of the {component}"
        return ""

    @torch.no_grad()
    def _init(self, seed: int) -> None:
        """A ~ U(−1/√fan_in, 1/√fan_in) as PEFT has it, but from a stream of its own for each layer's name; B = 0.

        LoKr starts in the same way, and OFT from zeros alone. LoHa's matrices start from a normal distribution as
        LyCORIS has it: from PEFT's the first changes are a hundred times smaller, and usual learning rates would teach
        nothing.

        DoRA's magnitude starts as the norm of each output channel's weights, in float32: as PEFT keeps it, rounded to
        the layer's type, it would rescale every channel by up to half of that type's precision.
        """
        for name, master in zip(self.names, self.masters, strict=True):
            stem, role = split(name)
            if starts_at_zero(role):
                master.zero_()
            elif role == "lora_magnitude_vector":
                component, path = stem.split(".", 1)
                weight = self.components[component].get_parameter(f"{path}.base_layer.weight")
                master.copy_(torch.linalg.vector_norm(weight.flatten(1).float(), dim=1).reshape(master.shape))
            else:
                stream = torch.Generator().manual_seed(derived_seed("lora A", seed, name))
                spread, bound = normal_spread(role), master[0].numel() ** -0.5
                values = torch.empty(master.shape)
                values = (values.uniform_(-bound, bound, generator=stream) if spread is None else
                          values.normal_(0.0, spread, generator=stream))
                master.copy_(values.to(master.device))
        self.sync_to_model()

    @torch.no_grad()
    def _start_from_weights(self, progress: Progress) -> None:
        """Start A and B from the weights they adapt, and have the layers compute less what that computes."""
        places = {split(name): place for place, name in enumerate(self.names)}
        stems = list(dict.fromkeys(stem for stem, _ in places))
        progress.phase("decomposing", len(stems))
        for done, stem in enumerate(stems, 1):
            progress.check()
            component, path = stem.split(".", 1)
            layer: Any = self.components[component].get_submodule(path)
            held = [places[stem, role] for role in ("lora_A", "lora_B")]
            found = principal_part(layer.get_base_layer().weight, layer.r[ADAPTER], layer.scaling[ADAPTER],
                                   self.config.init_weights)
            starts = [value.to(self.parameters[place]) for value, place in zip(found, held, strict=True)]
            for place, start in zip(held, starts, strict=True):
                self.masters[place].copy_(start)
                self._starts[self.names[place]] = start.float().cpu()
            subtract_start(layer, ADAPTER, *starts)
            progress.advance(done)
        self.sync_to_model()

    @torch.no_grad()
    def sync_to_model(self) -> None:
        """Copy the masters into the modules' parameters (nothing to do in float32)."""
        pairs = [(p, m) for p, m in zip(self.parameters, self.masters, strict=True) if p is not m]
        if pairs:
            torch._foreach_copy_([p.data for p, _ in pairs], [m.data for _, m in pairs])  # pyright: ignore

    @torch.no_grad()
    def accumulate_gradients(self, factor: Tensor | None = None) -> None:
        """Add the parameters' gradients, times `factor` (a scalar), to the masters' and clear the former.

        In float32, where both are the same tensors, there is nothing to do (and no loss scale). All tensors at once: a
        card is given a few kernels, not a thousand.
        """
        pairs = [(p, m) for p, m in zip(self.parameters, self.masters, strict=True)
                 if p is not m and p.grad is not None]
        if not pairs:
            return
        added = [torch.empty_like(master) for _, master in pairs]
        torch._foreach_copy_(added, [parameter.grad for parameter, _ in pairs])  # pyright: ignore
        if factor is not None:
            torch._foreach_mul_(added, factor)  # pyright: ignore
        sums: list[tuple[Tensor, Tensor]] = []
        for (parameter, master), gradient in zip(pairs, added, strict=True):
            parameter.grad = None
            if master.grad is None:
                master.grad = gradient
            else:
                sums.append((master.grad, gradient))
        if sums:
            torch._foreach_add_([total for total, _ in sums], [more for _, more in sums])  # pyright: ignore

    @torch.no_grad()
    def add_gradients(self, pairs: list[tuple[Tensor, Tensor]]) -> None:
        """Add to masters' gradients (pairs of both, float32), whose memory stays the caller's."""
        first = [(master, gradient) for master, gradient in pairs if master.grad is None]
        others = [(master.grad, gradient) for master, gradient in pairs if master.grad is not None]
        if first:
            copies = [torch.empty_like(master) for master, _ in first]
            torch._foreach_copy_(copies, [gradient for _, gradient in first])  # pyright: ignore
            for (master, _), copy in zip(first, copies, strict=True):
                master.grad = copy
        if others:
            torch._foreach_add_([total for total, _ in others], [more for _, more in others])  # pyright: ignore

    def drop_gradients(self) -> None:
        """Forget all gradients."""
        for tensor in (*self.parameters, *self.masters):
            tensor.grad = None

    @torch.no_grad()
    def load(self, tensors: list[Tensor]) -> None:
        """Set the masters, in the order of `names`, and copy them into the model."""
        for master, tensor in zip(self.masters, tensors, strict=True):
            master.copy_(tensor)
        self.sync_to_model()

    def snapshot(self) -> list[Tensor]:
        """Copies of the masters, on their device."""
        return [master.detach().clone() for master in self.masters]

    @contextmanager
    def replaced(self, tensors: list[Tensor] | None) -> Iterator[None]:
        """Have other values meanwhile, in the order of `names`; None: the masters' own.

        The masters wait on the CPU, where they take no memory of the device.
        """
        if tensors is None or tensors is self.masters:
            yield
            return
        kept = [master.detach().to("cpu", copy=True) for master in self.masters]
        try:
            self.load(tensors)
            yield
        finally:
            self.load(kept)

    @contextmanager
    def off(self) -> Iterator[None]:
        """Have the components compute as if they had no adapters meanwhile. Only for passes without gradients."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        layers: list[Any] = [layer for module in self.components.values() for layer in module.modules()
                             if isinstance(layer, BaseTunerLayer)]
        try:
            for layer in layers:  # PEFT's own switch also takes the adapters' gradients away
                layer._disable_adapters = True
            yield
        finally:
            for layer in layers:
                layer._disable_adapters = False

    def weights(self, tensors: list[Tensor] | None = None) -> dict[str, Adapter]:
        """`tensors` (or the masters) as LoRA weights on the CPU."""
        parts: dict[str, dict[str, Tensor]] = {}
        for name, tensor in zip(self.names, tensors or self.masters, strict=True):
            stem, role = split(name)
            parts.setdefault(stem, {})[role] = tensor.detach().float().cpu()
        made = {stem: adapter_of(self.config, _layer_path(stem), part) for stem, part in parts.items()}
        starts: dict[str, dict[str, Tensor]] = {}
        for name, start in self._starts.items():
            stem, role = split(name)
            starts.setdefault(stem, {})[role] = start
        return {canonical(stem): learnt(module, starts[stem]["lora_A"], starts[stem]["lora_B"])
                if isinstance(module, LoraModule) and stem in starts else module for stem, module in made.items()}

    def trained(self, tensors: list[Tensor] | None = None) -> bool:
        """Whether `tensors` (or the masters) change anything yet."""
        pairs = zip(self.names, tensors or self.masters, strict=True)
        if self._starts:
            return any(not torch.equal(tensor.detach().float().cpu(), self._starts[name]) for name, tensor in pairs)
        return any(starts_at_zero(split(name)[1]) and bool(tensor.any()) for name, tensor in pairs)

    def tensors_of(self, weights: LoraWeights) -> list[Tensor]:
        """The inverse of `weights`: tensors on the CPU in the order of `names`, shaped as the masters are."""
        return [_own(part_of(weights[canonical(stem)], role).float(), role, master)
                for (stem, role), master in zip(map(split, self.names), self.masters, strict=True)]

    def train(self, mode: bool) -> None:
        """Training mode switches adapter dropout on (and lets gradient checkpointing act); evaluation mode off."""
        for module in self.components.values():
            module.train(mode)
