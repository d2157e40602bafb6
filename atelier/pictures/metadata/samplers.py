"""Map the names of samplers and schedulers in other programs to those of the host."""

from __future__ import annotations

import re

_SAMPLERS = {
    "euler": "euler", "euler a": "euler_ancestral", "lms": "lms", "heun": "heun", "dpm2": "dpm_2",
    "dpm2 a": "dpm_2_ancestral", "dpm++ 2s a": "dpmpp_2s_ancestral", "dpm++ 2m": "dpmpp_2m", "dpm++ sde": "dpmpp_sde",
    "dpm++ 2m sde": "dpmpp_2m_sde", "dpm++ 2m sde heun": "dpmpp_2m_sde_heun", "dpm++ 3m sde": "dpmpp_3m_sde",
    "dpm fast": "dpm_fast", "dpm adaptive": "dpm_adaptive", "ddim": "ddim", "ddim cfg++": "euler_cfg_pp",
    "unipc": "uni_pc", "lcm": "lcm", "ddpm": "ddpm", "deis": "deis", "ipndm": "ipndm", "ipndm_v": "ipndm_v",
    "heunpp2": "heunpp2", "plms": "ipndm",
}
"""AUTOMATIC1111's and Forge's labels, in lower case and without a scheduler at their end."""

_SCHEDULERS = {
    "automatic": "normal", "uniform": "normal", "karras": "karras", "exponential": "exponential",
    "polyexponential": "exponential", "sgm uniform": "sgm_uniform", "kl optimal": "kl_optimal", "simple": "simple",
    "normal": "normal", "ddim": "ddim_uniform", "beta": "beta", "linear quadratic": "linear_quadratic",
}

_ENDING = re.compile(r"[ _](karras|exponential|sgm[ _]uniform)$", re.IGNORECASE)
"""Spacings that older versions put behind the sampler's name, in words or as file names have them."""

_INVOKE = {
    "ddim": "ddim", "ddpm": "ddpm", "deis": "deis", "dpmpp_2s": "dpmpp_2s_ancestral", "dpmpp_2m": "dpmpp_2m",
    "dpmpp_sde": "dpmpp_sde", "dpmpp_2m_sde": "dpmpp_2m_sde", "heun": "heun", "lms": "lms", "unipc": "uni_pc",
    "euler": "euler", "euler_a": "euler_ancestral", "kdpm_2": "dpm_2", "kdpm_2_a": "dpm_2_ancestral", "lcm": "lcm",
    "plms": "ipndm", "pndm": "ipndm", "dpm_2": "dpm_2", "dpm_2_a": "dpm_2_ancestral", "dpmpp_2": "dpmpp_2m",
    "dpmpp_3m": "dpmpp_3m_sde",
}
"""InvokeAI's names, without the "_k" that asks for Karras' noise levels and the "k_" of its first versions."""


def from_labels(sampler: str, scheduler: str) -> tuple[str, str]:
    """AUTOMATIC1111's labels as (sampler, scheduler) of the host; older versions put both into one label.

    What has no counterpart stays as it is written.
    """
    label, spacing = sampler.strip(), scheduler.strip()
    ending = _ENDING.search(label)
    if ending and not spacing:
        label, spacing = label[:ending.start()], ending[1]
    plain = " ".join(spacing.lower().replace("_", " ").split())
    name = label.lower()
    return name if name in _SAMPLERS.values() else _SAMPLERS.get(name, label), _SCHEDULERS.get(plain, spacing)


def from_novelai(sampler: str, schedule: str) -> tuple[str, str]:
    """NovelAI's sampler and noise schedule as (sampler, scheduler) of the host."""
    name = sampler.strip().removeprefix("k_").removesuffix("_v3")
    return name, _SCHEDULERS.get(schedule.strip(), schedule.strip())


def from_invoke(scheduler: str) -> tuple[str, str]:
    """InvokeAI's scheduler as (sampler, scheduler) of the host."""
    name = scheduler.strip().removeprefix("k_")
    spacing = "karras" if name.endswith("_k") else "normal" if name else ""
    name = name.removesuffix("_k")
    return _INVOKE.get(name, name), spacing
