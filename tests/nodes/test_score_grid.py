"""The nodes for scores, grids and saving, called in this process as the host calls them: lists in, lists out."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from kit.clip_models import clip_config, random_clip, random_pictures, save_clip
from kit.pack import node_classes, pack_module
from PIL import Image

pytestmark = pytest.mark.host


@pytest.fixture(scope="module")
def nodes(pack: ModuleType) -> dict[str, Any]:
    return node_classes(pack)


@pytest.fixture
def clip(pack: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A small CLIP model in models/clip_score."""
    import folder_paths

    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path))
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "clip_score", ([], set()))
    save_clip(tmp_path / "clip_score" / "tiny clip", random_clip(clip_config()))
    return "tiny clip"


def batch(count: int, size: tuple[int, int] = (24, 16), seed: int = 0) -> torch.Tensor:
    """An IMAGE of `count` pictures."""
    pictures = random_pictures([size] * count, seed)
    return torch.stack([torch.frombuffer(bytearray(p.tobytes()), dtype=torch.uint8).reshape(size[1], size[0], 3)
                        for p in pictures]).float() / 255


def run(node: Any, **inputs: Any) -> tuple[Any, ...]:
    """Execute with every widget at its default, wrapped in lists where the node takes lists."""
    schema = node.GET_SCHEMA()
    wrap = (lambda value: [value]) if schema.is_input_list else (lambda value: value)
    defaults = {i.id: wrap(getattr(i.default, "value", i.default)) for i in schema.inputs
                if not i.optional and getattr(i, "default", None) is not None}
    return node.execute(**{**defaults, **inputs}).result


def test_scores_of_mixed_sizes_then_the_best_unchanged(nodes: dict[str, Any], clip: str) -> None:
    images = [batch(2), batch(3, (40, 20), seed=1)]
    scores, mean, table, annotated = run(nodes["AtelierCLIPScore"], images=images, text=["a cat"], model=[clip],
                                         references=[batch(1)])
    assert len(scores.items) == 5 and mean == scores.mean
    assert table == scores.table() and "tiny clip, cosine, crop center" in table and "likeness" in table
    assert [picture.shape[2] for picture in annotated] == [24, 24, 40, 40, 40]
    assert annotated[0].shape[1] > 16
    best, chosen = run(nodes["AtelierPickBest"], images=images, scores=[scores], k=[2])
    singles = [image[None] for part in images for image in part]
    order = sorted(range(5), key=lambda i: -scores.items[i].value)[:2]
    assert all(torch.equal(picture, singles[i]) for picture, i in zip(best, order, strict=True))
    assert [s.value for s in chosen.items] == [scores.items[i].value for i in order]


def test_one_text_for_each_batch_or_picture(nodes: dict[str, Any], clip: str) -> None:
    images = [batch(2), batch(1)]

    def texts(*given: str) -> list[str]:
        return [s.text for s in run(nodes["AtelierCLIPScore"], images=images, text=list(given), model=[clip])[0].items]

    assert texts("a", "b") == ["a", "a", "b"]
    assert texts("a", "b", "c") == ["a", "b", "c"]
    with pytest.raises(Exception, match="3 pictures and 4 texts"):
        texts("a", "b", "c", "d")


def test_csv_on_request(nodes: dict[str, Any], clip: str) -> None:
    table = run(nodes["AtelierCLIPScore"], images=[batch(1)], text=["a"], model=[clip], table_format=["csv"])[2]
    assert table.startswith("picture,score,cosine,") and table.count("\n") == 2


def test_models_on_offer_are_those_in_the_folder(pack: ModuleType, clip: str, tmp_path: Path) -> None:
    host = pack_module(pack, "nodes.host")
    (tmp_path / "clip_score" / "ViT-B-32.safetensors").touch()
    (tmp_path / "clip_score" / "notes").mkdir()
    assert host.clip_score_names() == ["ViT-B-32.safetensors", "tiny clip"]
    assert host.clip_score_path("tiny clip") == tmp_path / "clip_score" / "tiny clip"
    for name in ("notes", "../clip_score/tiny clip"):
        with pytest.raises(Exception, match="no CLIP model"):
            host.clip_score_path(name)


def test_a_grid_with_everything_known(nodes: dict[str, Any], clip: str, tmp_path: Path) -> None:
    for number, picture in enumerate(random_pictures([(30, 20)] * 14)):
        picture.save(tmp_path / f"{number}.jpg")
    unique = [batch(4, (32, 32))]
    scores = run(nodes["AtelierCLIPScore"], images=unique, text=["a cat"], model=[clip])[0]
    fillers, sources = run(nodes["AtelierFillerImages"], folder=str(tmp_path), count=12)
    assert len(fillers) == len(set(sources)) == 12
    grid, text = run(nodes["AtelierBlockGrid"], images=unique, fillers=fillers, filler_sources=sources,
                     scores=[scores], seeds=[7, 8, 9, 10], cell_width=[32], cell_height=[0], captions=["score"])
    manifest = json.loads(text)
    # 2 × 2 blocks of 2 × 2 cells of 32 × (32 + 20 for the strip): 15 + 68 + 10 + 68 + 15, 15 + 108 + 10 + 108 + 15.
    assert tuple(grid.shape) == (1, 256, 176, 3)
    assert (manifest["width"], manifest["height"], len(manifest["cells"])) == (176, 256, 16)
    cells = [cell for cell in manifest["cells"] if cell["kind"] == "unique"]
    for cell in cells:
        box, number = cell["box"], cell["picture"]
        part = grid[0, box["y"]:box["y"] + 32, box["x"]:box["x"] + 32]
        assert torch.equal(part, unique[0][number]), "the very pixels"
        assert cell["origin"] == {"prompt": "a cat", "seed": 7 + number, "source": "", "label": "",
                                  "score": scores.items[number].value}
    assert [c["origin"]["source"] for c in manifest["cells"] if c["kind"] == "filler"] == sources


def test_a_plain_grid_without_fillers_and_too_few(nodes: dict[str, Any]) -> None:
    grid, _ = run(nodes["AtelierBlockGrid"], images=[batch(3)], block=[1], columns=[3], cell_width=[0], cell_height=[0],
                  gaps=["none"])
    assert tuple(grid.shape) == (1, 16, 72, 3)
    assert torch.equal(grid[0, :, 24:48], batch(3)[1])
    with pytest.raises(Exception, match=r"2 fillers; 1 blocks .* need 3"):
        run(nodes["AtelierBlockGrid"], images=[batch(1)], fillers=[batch(2)])


def test_labels_are_one_text_or_a_list_one_for_each_picture(nodes: dict[str, Any]) -> None:
    made = [run(nodes["AtelierBlockGrid"], images=[batch(2, (64, 32))], block=[1], cell_width=[0], cell_height=[0],
                labels=labels) for labels in (["cfg 1\n\n cfg 3 "], ["cfg 1|cfg 3"], ["cfg 1", "cfg 3"])]
    assert all(torch.equal(made[0][0], other[0]) and made[0][1] == other[1] for other in made[1:])
    grid, text = made[0]
    boxes = [cell["box"] for cell in json.loads(text)["cells"]]
    assert [cell["origin"]["label"] for cell in json.loads(text)["cells"]] == ["cfg 1", "cfg 3"]
    strips = [grid[0, box["y"] + 32:box["y"] + 52, box["x"]:box["x"] + 64] for box in boxes]
    assert all(strip.std() > 0.02 for strip in strips) and not torch.equal(*strips), "nothing is written"
    with pytest.raises(Exception, match=r"2 pictures and 3 labels.* Write 2 with"):
        run(nodes["AtelierBlockGrid"], images=[batch(2)], block=[1], labels=["a\nb\nc"])


def test_custom_gaps(nodes: dict[str, Any]) -> None:
    grid, _ = run(nodes["AtelierBlockGrid"], images=[batch(2)], block=[1], columns=[2], cell_width=[10],
                  cell_height=[10], gaps=["custom"], gap_between=[3], margin=[1], background=["#ff0000"])
    assert tuple(grid.shape) == (1, 12, 25, 3)
    assert torch.equal(grid[0, 0, 0], torch.tensor([1.0, 0.0, 0.0]))


def test_saving_by_title(nodes: dict[str, Any]) -> None:
    import folder_paths

    out = Path(folder_paths.get_output_directory()) / "my cats"
    images = [batch(2)]
    files, = run(nodes["AtelierSaveTitled"], images=images, title=["Neon: Whiskers"], folder=["my cats"],
                 prompt=["a cat"], negative=["blurry"], seeds=[3, 4], manifest=['{"version": 1}'])
    assert [Path(file).name for file in files] == ["Neon- Whiskers.png", "Neon- Whiskers (2).png"]
    assert sorted(path.suffix for path in out.iterdir()) == [".json"] * 2 + [".png"] * 2 + [".txt"] * 2
    with Image.open(files[1]) as picture:
        assert picture.tobytes() == (images[0][1] * 255).round().byte().numpy().tobytes()
    about = json.loads((out / "Neon- Whiskers (2).json").read_text(encoding="utf-8"))
    assert (about["title"], about["seed"], about["grid"]) == ("Neon: Whiskers", 4, {"version": 1})
    text = (out / "Neon- Whiskers.txt").read_text(encoding="utf-8")
    assert text.startswith("a cat\nNegative prompt: blurry\nSeed: 3")
    for folder in ("../elsewhere", "/tmp", "a/../.."):
        with pytest.raises(Exception, match="cannot be a file name"):
            run(nodes["AtelierSaveTitled"], images=images, folder=[folder])


def test_a_training_set_from_a_local_data_set(nodes: dict[str, Any], tmp_path: Path) -> None:
    for name in ("red fox", "owl"):
        (tmp_path / name).mkdir()
        for number, picture in enumerate(random_pictures([(96, 64)] * 3, seed=len(name))):
            picture.save(tmp_path / name / f"{number}.png")
    data, = run(nodes["AtelierHubDataset"], dataset=str(tmp_path), column="label", value="red fox", limit=2,
                caption="a {label}", trigger="sks", resolution=64)
    assert [sample.captions for sample in data.samples] == [("sks, a red fox",)] * 2
    fillers, sources = run(nodes["AtelierFillerImages"], folder="", count=2, training_set=data)
    assert len(fillers) == 2 and fillers[0].shape[1:3] == (64, 96)
    assert sorted(sources) == [sample.image.name for sample in data.samples]
