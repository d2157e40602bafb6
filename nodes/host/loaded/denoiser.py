"""The host's network as what a run trains."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ....atelier.lora.file import in_form
from ....atelier.lora.names import OTHER_NETWORK, canonical
from ....atelier.lora.weights import LoraModule
from ....atelier.train.blocks import layers_of
from ....atelier.train.denoiser import Conditions
from ....atelier.train.foreign_forward import trainable_forward
from ....atelier.train.pixel_loss import PixelLoss
from ....atelier.train.request.levels import LevelConfig
from ....atelier.train.request.lora import LoraConfig, layer_pattern
from ....atelier.train.request.recipe import LossConfig
from .conditions import batches, network_inputs
from .gradients import in_training, plain_attention
from .kinds import is_stable_diffusion
from .objective import HostObjective


@dataclass(frozen=True)
class HostDenoiser:
    """A `Denoiser` (see `atelier.train.denoiser`): its prediction is the denoised latent."""

    model: Any
    """The host's `BaseModel`, built outside inference mode, on the device."""
    guidance: float | None
    device: torch.device
    dtype: torch.dtype

    @property
    def sampling(self) -> Any:
        """The host's noise process, `model_sampling`."""
        return self.model.model_sampling

    @property
    def network(self) -> nn.Module:
        """The diffusion network within the host's model."""
        return self.model.diffusion_model

    @property
    def components(self) -> Mapping[str, nn.Module]:
        """The network, under the name that it has in the host's LoRA files."""
        return {OTHER_NETWORK: self.network}

    @property
    def encodes_captions(self) -> bool:
        """Never: the text encoder has left the device."""
        return False

    @property
    def uncapturable(self) -> str:
        """Networks of the host may compute with numbers of the processor, which a recording would keep."""
        return "ComfyUI's own networks were not tried with them"

    def adapted_layers(self, config: LoraConfig) -> Mapping[str, str]:
        """In Stable Diffusion's UNet the layers that have these names in diffusers, in others those of that role."""
        if not is_stable_diffusion(self.model):
            paths = layers_of(self.network, config.targets, config.target_pattern)
        else:
            wanted = re.compile(layer_pattern("unet", config))
            # Where a block needs no shortcut, a module that does nothing bears its name.
            names = {path: canonical(f"{OTHER_NETWORK}.{path}") for path, module in self.network.named_modules()
                     if isinstance(module, nn.Linear | nn.Conv2d)}
            paths = [path for path, name in names.items()
                     if name.startswith("unet.") and wanted.fullmatch(name.removeprefix("unet."))]
        return {OTHER_NETWORK: "|".join(map(re.escape, paths))}

    def check_form(self, config: LoraConfig, format: str, base: str) -> None:
        """Refuse a format of the LoRA file that has no names for the layers, before anything is trained.

        Raises:
            AtelierError: it says which formats there are.
        """
        pattern = re.compile(self.adapted_layers(config)[OTHER_NETWORK])
        layers = {canonical(f"{OTHER_NETWORK}.{path}"): layer.weight for path, layer in self.network.named_modules()
                  if isinstance(layer, nn.Linear | nn.Conv2d) and pattern.fullmatch(path)}
        in_form({name: LoraModule(torch.empty(1, *weight.shape[1:], device="meta"),
                                  torch.empty(weight.shape[0], 1, device="meta"), 1.0)
                 for name, weight in layers.items()}, format, base)

    def objective(self, loss: LossConfig, levels: LevelConfig) -> HostObjective:
        """The host's own noise process."""
        return HostObjective(self.sampling, levels, self.model.latent_format.spacial_downscale_ratio,
                             loss.min_snr_gamma, PixelLoss(loss))

    def predict(self, network: Callable[..., Any], noisy: Tensor, levels: Tensor, conditions: Conditions,
                captions: tuple[str, ...]) -> Tensor:
        """The denoised latents x̂₀, float32; texts of different lengths in passes of their own."""
        samples = [network_inputs(self.model, row, noisy[index:index + 1], self.guidance)
                   for index, row in enumerate(conditions)]
        parts: dict[int, Tensor] = {}
        with trainable_forward(in_training):
            for group in batches(samples):
                first, *others = (samples[index] for index in group)
                inputs = {name: condition.concat([other[name] for other in others]) if others else condition.cond
                          for name, condition in first.items()}
                place = torch.tensor(group, device=noisy.device)
                options = {"cond_or_uncond": [0], "sigmas": levels[place],
                           "optimized_attention_override": plain_attention}
                denoised = self.model.apply_model(noisy[place], levels[place].float(), transformer_options=options,
                                                  **inputs)
                parts.update(zip(group, denoised, strict=True))
        return torch.stack([parts[index] for index in range(len(samples))])
