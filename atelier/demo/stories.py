"""The two stories of `make demo`: the shipped model with a pencil style, or the user's own model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..dataset.types import Crop, Resolution
from ..models.inspect import inspect
from ..progress import Progress
from ..sampling import SamplingOptions, recommended
from ..train.request.presets import build_request
from .clip import FOLDER_NAME, expand_clip
from .drawing import STYLE_TEXT, held_out_prompts, pencil_caption
from .expand import FILE_NAME, expand
from .folders import picture_folders
from .result import Scoring, Story
from .sets import photographs

GUIDANCE = 1.5
"""Higher values make the colours of a briefly trained LoRA harsh."""


def pencil_story(out: Path, progress: Progress) -> Story:
    """Train a pencil style on the shipped model. Everything is written below `out`; nothing is downloaded."""
    model = expand(out / "models" / FILE_NAME, progress)
    clip = expand_clip(out / "models" / FOLDER_NAME, progress)
    pencil, plain, fillers = picture_folders(out / "work" / "drawn")
    chosen = held_out_prompts(8)
    return Story(
        model=model, pictures=pencil, prior=plain, fillers=fillers, name="pencil",
        prompts=tuple(pencil_caption(spec) for spec, _ in chosen),
        contents=tuple(words for _, words in chosen), resolution=Resolution(128, Crop.CENTER),
        request=build_request("demo model"),
        sampling=SamplingOptions(128, 128, steps=12, cfg=GUIDANCE), scoring=Scoring(clip, STYLE_TEXT),
        title="A pencil style for the demo model", batch_size=8)


def own_model_story(model: Path, pictures: Path | None, out: Path, *, large: bool) -> Story:
    """Fine-tune a checkpoint of the user's on their pictures, or on a few photographs.

    Args:
        model: The checkpoint.
        pictures: A folder with caption files; None takes photographs from scikit-image.
        out: Working folder.
        large: Whether the device is fast enough for a full training at the model's size; otherwise a short one at 128
            pixels shows that everything works, not the quality.
    """
    folder = pictures or photographs(out / "work" / "photographs")
    captions = [file.read_text(encoding="utf-8-sig").strip() for file in sorted(folder.glob("*.txt"))]
    prompts = tuple(caption for caption in captions if caption)[:4] or ("a photograph",)
    advice = recommended(inspect(model).advice)
    size = advice.width if large else 128
    return Story(model=model, pictures=folder, prior=None, fillers=folder, name="demo", prompts=prompts,
                 contents=prompts, resolution=Resolution(size, Crop.CENTER),
                 request=build_request("quick look", {} if large else {"steps": 12}),
                 sampling=replace(advice, width=size, height=size,
                                  steps=advice.steps if large else min(advice.steps, 4)),
                 title=f"Before and after: {model.stem}", batch_size=1)
