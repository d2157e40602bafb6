"""The denoising loop, opened up, in a running ComfyUI: beside the host's own sampler, for several samplers."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from kit.graphs import Graph
from kit.host import Host, Result
from PIL import Image

pytestmark = pytest.mark.host


def graph(checkpoint: str, *, sampler: str = "euler", steps: int = 5, cfg: float = 6.0, denoise: float = 1.0,
          **inputs: Any) -> Graph:
    """Ours and the host's sampler on the same noise, guider, sampler and sigmas."""
    shared = {"noise": ["noise", 0], "guider": ["guider", 0], "sampler": ["solver", 0], "sigmas": ["plan", 0],
              "latent_image": ["start", 0]}
    start = ("EmptyLatentImage", {"width": 64, "height": 64}) if denoise == 1 else (
        "VAEEncode", {"pixels": ["photo", 0], "vae": ["load", 2]})
    photo = {} if denoise == 1 else {"photo": ("EmptyImage", {"width": 64, "height": 64, "color": 0x4080C0})}
    return Graph(
        load=("CheckpointLoaderSimple", {"ckpt_name": checkpoint}),
        positive=("CLIPTextEncode", {"clip": ["load", 1], "text": "a red circle"}),
        negative=("CLIPTextEncode", {"clip": ["load", 1], "text": "blurry"}),
        guider=("CFGGuider", {"model": ["load", 0], "positive": ["positive", 0], "negative": ["negative", 0],
                              "cfg": cfg}),
        noise=("RandomNoise", {"noise_seed": 5}), solver=("KSamplerSelect", {"sampler_name": sampler}),
        plan=("BasicScheduler", {"model": ["load", 0], "scheduler": "normal", "steps": steps, "denoise": denoise}),
        **photo, start=start,
        ours=("AtelierDenoisingSteps", {**shared, "vae": ["load", 2], "every": 1, **inputs}),
        theirs=("SamplerCustomAdvanced", shared),
        decode=("VAEDecode", {"samples": ["ours", 0], "vae": ["load", 2]}),
        frames=("PreviewImage", {"images": ["ours", 3]}), strip=("PreviewImage", {"images": ["ours", 2]}),
        latent=("PreviewImage", {"images": ["decode", 0]}),
        expected=("VAEDecode", {"samples": ["theirs", 0], "vae": ["load", 2]}),
        clean=("VAEDecode", {"samples": ["theirs", 1], "vae": ["load", 2]}),
        show=("PreviewImage", {"images": ["expected", 0]}), show_clean=("PreviewImage", {"images": ["clean", 0]}))


def run(host: Host, made: Graph) -> Result:
    result = host.queue(made.fill(host), timeout=300)
    assert result.status == "success", result.error
    return result


@pytest.mark.parametrize(("sampler", "denoise"), [("lms", 1.0), ("ddim", 0.6), ("heun", 1.0), ("uni_pc", 1.0)])
def test_the_last_frame_is_the_hosts_own_picture(host: Host, checkpoint: str, sampler: str, denoise: float) -> None:
    result = run(host, graph(checkpoint, sampler=sampler, denoise=denoise, steps=3, rows="prediction", every=2))
    expected, = result.pictures("show")
    frames = result.pictures("frames")
    assert expected.std() > 5
    assert np.array_equal(frames[-1], expected)
    assert np.array_equal(result.pictures("latent")[0], expected)
    assert not any(np.array_equal(frames[0], frame) for frame in frames[1:])


def test_steps_rows_labels_and_animation(host: Host, checkpoint: str) -> None:
    result = run(host, graph(checkpoint, steps=5, animation="shown/höher"))
    frames = result.pictures("frames")
    assert len(frames) == 6
    # Euler's last step goes to sigma 0, where the result is the prediction.
    assert np.abs(frames[-2].astype(int) - frames[-1]).max() <= 1
    assert np.array_equal(frames[-2], result.pictures("show_clean")[0])
    strip, = result.pictures("strip")
    cell, left, top, gap = 64, 112, 44, 6
    assert strip.shape == (top + 3 * (cell + gap) + gap, left + 6 * (cell + gap) + gap, 3)
    rows = [[strip[top + r * (cell + gap):, left + c * (cell + gap):][:cell, :cell] for c in range(6)]
            for r in range(3)]
    for column, frame in enumerate(frames):
        assert np.abs(rows[0][column].astype(int) - frame).max() <= 1  # the host truncates to 8 bits, the pack rounds
    assert all((rows[r][5] == 255).all() for r in (1, 2)), "the result stands alone"
    noisy = [np.abs(rows[1][c].astype(int) - frames[-1]).mean() for c in range(5)]
    assert noisy[0] > noisy[-1], "the noise goes"
    assert all(rows[2][c].max() > 0 for c in range(5)) and max(rows[2][c].max() for c in range(5)) == 255
    assert strip[:top].min() < 100 and strip[top:, :left].min() < 100, "labels"
    shown, moving = result.outputs["ours"]["images"]
    assert shown["type"] == "temp" and moving["subfolder"] == "shown"
    with Image.open(io.BytesIO((host.base / "output" / "shown" / moving["filename"]).read_bytes())) as animation:
        assert (animation.format, getattr(animation, "n_frames", 1)) == ("WEBP", 6)
        assert animation.size == (64, 64 + 28)


def test_without_guidance_there_is_no_difference_to_show(host: Host, checkpoint: str) -> None:
    result = run(host, graph(checkpoint, steps=3, cfg=1.0, animation=""))
    assert result.pictures("strip")[0].shape[0] == 44 + 2 * 70 + 6
    assert len(result.outputs["ours"]["images"]) == 1


def test_mistakes_reach_the_user(host: Host, checkpoint: str) -> None:
    failed = host.queue(graph(checkpoint).change("plan", denoise=0.0).fill(host))
    assert failed.status == "error" and "There are no steps" in failed.error
    failed = host.queue(graph(checkpoint).change("ours", animation="../a").fill(host))
    assert failed.status == "error" and "cannot be a file name" in failed.error
