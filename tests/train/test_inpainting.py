"""Inpainting models: what they are given beside the noisy latents, their loss, their samples, and their files."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DiffusionPipeline, StableDiffusionInpaintPipeline
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from kit.checkpoints import write_sd1, write_sdxl
from kit.encoding import encoded
from kit.pictures import write_pictures
from kit.training_loop import request
from kit.training_run import After
from PIL import Image
from safetensors.torch import load_file

from atelier.convert import ConvertOptions, to_checkpoint, to_folder
from atelier.dataset.cache import EncodedSet
from atelier.dataset.folder import FolderOptions, read_folder
from atelier.dataset.inpaint_masks import inpaint_masks
from atelier.dataset.prepare import prepare
from atelier.dataset.types import Resolution, TrainingSet
from atelier.errors import AtelierError
from atelier.generate import GenerateRequest, Picture, generate
from atelier.lora.bake import merge_of
from atelier.lora.file import load_lora, read_metadata
from atelier.lora.merge import merge_into
from atelier.lora.weights import select
from atelier.models.handle import DiffusersModel
from atelier.models.layout import read_layout
from atelier.models.load import load_unet
from atelier.models.open import open_model
from atelier.prior.draw import DiffusersDrawer
from atelier.prior.options import PriorOptions, PriorPicture
from atelier.progress import Interrupted, Progress
from atelier.sampling import SamplingOptions
from atelier.train.bucket_sampler import BucketSampler, derived_seed
from atelier.train.devices import RunPaths
from atelier.train.diffusers_trainable import DiffusersTrainable
from atelier.train.early_stopping import ValidationPlan
from atelier.train.request.inpainting import InpaintingConfig
from atelier.train.run import train
from atelier.train.trainer import Trainer

FAMILIES = {"sd1": partial(write_sd1, in_channels=9), "sdxl": partial(write_sdxl, in_channels=9)}
CPU = torch.device("cpu")
REQUEST = request(dict(rank=4, alpha=8), dict(learning_rate=1e-2, precision="fp32", validation_timesteps=8,
                                              validate_every=2, patience=9, batch_size=2), steps=4)


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> DiffusersModel:
    path = tmp_path_factory.mktemp("models") / f"{request.param}_inpainting.safetensors"
    return open_model(FAMILIES[request.param](path, shape="tiny"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> TrainingSet:
    return read_folder(write_pictures(tmp_path_factory.mktemp("pictures"), [(80, 64), (64, 64), (150, 100)]),
                       FolderOptions(resolution=Resolution(64), flip=True))


@pytest.fixture
def rows(model: DiffusersModel, pictures: TrainingSet, tmp_path: Path) -> EncodedSet:
    return encoded(pictures, model, tmp_path / "cache", inpaint_masks=4)


def test_mask_and_masked_picture_are_those_of_diffusers_pipeline(
        model: DiffusersModel, pictures: TrainingSet, rows: EncodedSet, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch) -> None:
    to_folder(model.path, tmp_path / "folder")
    pipe: Any = DiffusionPipeline.from_pretrained(tmp_path / "folder", torch_dtype=torch.float32)
    assert type(pipe).__name__.endswith("InpaintPipeline")
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda posterior, generator=None: posterior.mean)
    for index, flip, number in ((0, False, 0), (1, False, 1), (1, True, 2), (2, True, 3)):
        sample = pictures.samples[index]
        picture = torch.tensor(prepare(sample, pictures.resolution).pixels).permute(2, 0, 1)[None] / 127.5 - 1
        mask = torch.tensor(inpaint_masks(sample.digest, 64, 64, 4)[number])[None, None].float()
        if flip:
            picture, mask = picture.flip(-1), mask.flip(-1)
        theirs = StableDiffusionInpaintPipeline.prepare_mask_latents(
            pipe, mask, picture * (mask < 0.5), 1, 64, 64, torch.float32, CPU, None, False)
        # Of a picture of one colour, group norm in this small VAE divides rounding errors by almost nothing.
        torch.testing.assert_close(rows.inpainting(index, flip, number)[None], torch.cat(theirs, 1), rtol=1e-4,
                                   atol=1e-4 if number else 0.05)


def test_a_step_computes_the_loss_of_diffusers_arithmetic(model: DiffusersModel, rows: EncodedSet) -> None:
    trainer = _trainer(model, rows)
    (batch,) = trainer._batches(0)
    stream = torch.Generator().manual_seed(derived_seed("step", 0, 0, 0))
    mean, std = (torch.stack(parts) for parts in zip(*(rows.moments(use.index, use.flip) for use in batch),
                                                     strict=True))
    latents = mean + std * torch.randn(mean.shape, generator=stream)
    noise = torch.randn(mean.shape, generator=stream)
    t = torch.randint(0, 1000, (len(batch),), generator=stream)
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    noisy = scheduler.add_noise(latents, noise, t)  # type: ignore[arg-type]
    given = torch.cat([noisy, torch.stack([rows.inpainting(use.index, use.flip, use.inpaint_mask)
                                           for use in batch])], 1)
    texts = [rows.text(use.index, use.variant) for use in batch]
    added = None
    if "pooled" in texts[0]:
        added = {"text_embeds": torch.stack([text["pooled"] for text in texts]),
                 "time_ids": torch.stack([rows.time_ids(use.index, use.flip) for use in batch])}
    with torch.no_grad():
        out = load_unet(model)(given, t, torch.stack([text["embeds"] for text in texts]),
                               added_cond_kwargs=added).sample
    loss = trainer.train_step(0, trainer.initial_loss_scale).loss
    torch.testing.assert_close(loss, (out - noise).square().mean(), rtol=1e-4, atol=1e-6)


def test_every_mask_is_used_and_validation_has_its_own(rows: EncodedSet) -> None:
    sampler = BucketSampler(rows.items, 1, seed=0)
    used = {use.inpaint_mask for epoch in range(20) for (use,) in sampler.epoch(epoch)}
    assert used == {0, 1, 2, 3}
    assert [use.inpaint_mask for use in ValidationPlan.of(rows.items, REQUEST).uses] == [0, 1, 2]


def test_an_interrupted_run_with_samples_goes_on_bit_for_bit(model: DiffusersModel, pictures: TrainingSet,
                                                            tmp_path: Path) -> None:
    wanted = REQUEST.override(dict(sample_prompt="a fox", sample_every=2, sample_steps=2))
    whole = train("whole", model, pictures, wanted, _paths(tmp_path / "whole"), Progress())
    with pytest.raises(Interrupted):
        train("cut", model, pictures, wanted, _paths(tmp_path / "cut"), After(3))
    again = train("cut", model, pictures, wanted, _paths(tmp_path / "cut"), Progress())
    assert again.result.status == "complete"
    first, second = load_file(whole.lora), load_file(again.lora)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(tensor.any() for name, tensor in first.items() if "lora_up" in name)
    drawn = [[file.read_bytes() for file in sorted((tmp_path / name / "runs").rglob("step-*.png"))]
             for name in ("whole", "cut")]
    assert len(drawn[0]) == 2
    assert drawn[0] == drawn[1]
    header = read_metadata(whole.lora)
    family = model.family.removesuffix("-inpainting")
    assert header["ss_base_model_version"] == {"sd1": "sd_v1", "sdxl": "sdxl_base_v1-0"}[family]
    assert "inpainting/lora" in header["modelspec.architecture"]


def test_the_number_of_masks_belongs_to_the_run(model: DiffusersModel, pictures: TrainingSet, tmp_path: Path) -> None:
    reports = [train(f"{masks}", model, pictures, REQUEST.override(dict(inpaint_masks=masks)), _paths(tmp_path),
                     Progress()) for masks in (1, 2)]
    losses = [report.result.history.losses for report in reports]
    assert losses[0] != losses[1]
    assert len(list((tmp_path / "runs").iterdir())) >= 2


def test_pictures_are_drawn_as_diffusers_fills_in_a_whole_one(model: DiffusersModel, tmp_path: Path,
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    """The same calls of the UNet: of the shell's generation, and of prior pictures."""
    options = SamplingOptions(64, 64, 2, 3.0, "ddim")
    (mine,) = _drawn(model, options)
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda posterior, generator=None: posterior.mean)
    to_folder(model.path, tmp_path / "folder")
    pipe: Any = DiffusionPipeline.from_pretrained(tmp_path / "folder", torch_dtype=torch.float32)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    theirs = pipe("a fox", negative_prompt="blur", height=64, width=64, num_inference_steps=2, guidance_scale=3.0,
                  strength=1.0, image=Image.new("RGB", (64, 64), "grey"), mask_image=Image.new("L", (64, 64), 255),
                  latents=torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))).images[0]
    difference = max(abs(a - b) for a, b in zip(mine.image.tobytes(), theirs.tobytes(), strict=True))
    assert difference <= 8, "see above: latents of grey"
    wanted = PriorOptions(prompt="a fox", negative="blur", count=1, steps=2, cfg=3.0)
    (prior,) = DiffusersDrawer(model, CPU, torch.float32).draw([PriorPicture("a fox", 3, (64, 64), None)], wanted,
                                                               Progress())
    (plain,) = _drawn(model, SamplingOptions(64, 64, 2, 3.0))
    assert prior.tobytes() == plain.image.tobytes()


def test_wrong_numbers_of_masks_are_refused() -> None:
    for wrong in (0, -1, 65):
        with pytest.raises(AtelierError, match=f"inpaint_masks is {wrong}"):
            InpaintingConfig(inpaint_masks=wrong)


def _paths(folder: Path) -> RunPaths:
    return RunPaths(folder / "loras", folder / "runs", folder / "cache", "cpu")


def _trainer(model: DiffusersModel, rows: EncodedSet) -> Trainer:
    loaded = DiffusersTrainable(model).load(rows, REQUEST, device=CPU, dtype=torch.float32)
    return Trainer(loaded.denoiser, rows, REQUEST)


def _drawn(model: DiffusersModel, options: SamplingOptions) -> list[Picture]:
    request = GenerateRequest(prompts=("a fox",), seeds=(3,), negative="blur", options=options)
    return generate(model, request, device=CPU, dtype=torch.float32, progress=Progress())


def test_its_lora_is_merged_into_a_checkpoint_of_nine_channels(model: DiffusersModel, pictures: TrainingSet,
                                                               tmp_path: Path) -> None:
    wanted = REQUEST.override(dict(targets="attention_ff_conv", steps=2))
    lora = load_lora(train("fox", model, pictures, wanted, _paths(tmp_path), Progress()).lora)
    file = tmp_path / "merged_inpainting.safetensors"
    to_checkpoint(model.path, file, ConvertOptions(precision="fp32"), merge=merge_of(lora, read_layout(model.path)))
    merged = open_model(file)
    assert merged.family == model.family
    expected = load_unet(model)
    before = {name: tensor.clone() for name, tensor in expected.state_dict().items()}
    assert merge_into(expected, select(lora, "unet")) == len(lora)
    found = load_unet(merged).state_dict()
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-6)
    assert not all(torch.equal(found[name], tensor) for name, tensor in before.items())
