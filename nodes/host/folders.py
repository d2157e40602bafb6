"""The host's folders: model files by name, a person's own files, and where the pack keeps its own."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import comfy.model_management
import folder_paths

from ...atelier.checkpoint.pickled import WEIGHT_ENDINGS
from ...atelier.dataset.tree import files_below
from ...atelier.errors import AtelierError
from ...atelier.temp_paths import is_part
from .allowed import check_read, check_written, typed_path
from .work_folder import work_folder as work_folder


def model_names(kind: str) -> list[str]:
    """Names of the files in the host's model folders of one kind ("checkpoints", "loras", …); the host caches them."""
    return folder_paths.get_filename_list(kind)


def model_path(kind: str, name: str) -> Path:
    """Path of a file listed by `model_names`; the separator may be that of another system (`\\` or `/`).

    Raises:
        AtelierError: no such file is listed.
    """
    listed = {known.replace("\\", "/"): known for known in model_names(kind)}.get(str(name).replace("\\", "/"))
    path = folder_paths.get_full_path(kind, listed) if listed else None
    if path is None:
        raise _missing(f"file {name!r} in the {kind} folders")
    return Path(path)


def model_folder(kind: str) -> Path:
    """The folder for new model files of one kind: the first that the host lists."""
    return Path(folder_paths.get_folder_paths(kind)[0])


def diffusers_names() -> list[str]:
    """Diffusers folders at any depth in the host's model folders, named by their path below `models/diffusers`."""
    return sorted(_diffusers_folders())


def diffusers_path(name: str) -> Path:
    """Path of a folder listed by `diffusers_names`.

    Raises:
        AtelierError: there is no such folder.
    """
    return _lookup(_diffusers_folders(), name, f"diffusers model {name!r} in the diffusers folders")


def peft_names() -> list[str]:
    """PEFT folders in the host's LoRA folders, named by their path below; one with a folder for each component counts
    once."""
    return sorted(_peft_folders())


def peft_path(name: str) -> Path:
    """Path of a folder listed by `peft_names`.

    Raises:
        AtelierError: there is no such folder.
    """
    return _lookup(_peft_folders(), name, f"PEFT folder {name!r} in the loras folders")


def clip_score_names() -> list[str]:
    """CLIP models below `models/clip_score`: folders with a configuration, and single weight files."""
    return sorted(_clip_models())


def clip_score_folder() -> Path:
    """The folder for new CLIP models: the first that the host lists."""
    return _clip_score_folders()[0]


def clip_score_path(name: str) -> Path:
    """Path of a folder or file listed by `clip_score_names`.

    Raises:
        AtelierError: there is no such model.
    """
    return _lookup(_clip_models(), name, f"CLIP model {name!r} in models/clip_score",
                   "one there, such as the file open_clip_model.safetensors of timm/vit_base_patch32_clip_224.openai,")


def _lookup(paths: dict[str, Path], name: str, what: str, put: str = "it there") -> Path:
    name = name.replace("\\", "/")  # a graph saved on another system may have the other separator
    if name not in paths:
        raise _missing(what, put)
    return paths[name]


def _missing(what: str, put: str = "it there") -> AtelierError:
    return AtelierError(f"There is no {what}.", f"Choose another one, or put {put} and press R in the editor.")


def _diffusers_folders() -> dict[str, Path]:
    folders: dict[str, Path] = {}
    for root in map(Path, folder_paths.get_folder_paths("diffusers")):
        for parent, below, files in os.walk(root, followlinks=True):
            folder = Path(parent)
            below[:] = (name for name in below if not is_part(name))
            if "model_index.json" in files and folder != root:
                folders.setdefault(folder.relative_to(root).as_posix(), folder)
                below.clear()  # a model contains no other model
    return folders


def _peft_folders() -> dict[str, Path]:
    folders: dict[str, Path] = {}
    for root in map(Path, folder_paths.get_folder_paths("loras")):
        for parent, below, files in os.walk(root):  # unlike `rglob`, it tolerates folders that disappear meanwhile
            folder = Path(parent)
            below[:] = (name for name in below if not is_part(name))
            whole = folder.parent if folder.name in ("unet", "text_encoder", "text_encoder_2") else folder
            if "adapter_config.json" in files and whole != root:
                folders.setdefault(whole.relative_to(root).as_posix(), whole)
    return folders


def _clip_models() -> dict[str, Path]:
    models: dict[str, Path] = {}
    for root in _clip_score_folders():
        for parent, below, files in os.walk(root, followlinks=True):
            folder = Path(parent)
            below[:] = (name for name in below if not is_part(name))
            if "config.json" in files and folder != root:
                models.setdefault(folder.relative_to(root).as_posix(), folder)
                below.clear()  # a model contains no other model
                continue
            for file in map(folder.joinpath, files):
                if file.suffix.lower() in WEIGHT_ENDINGS:
                    models.setdefault(file.relative_to(root).as_posix(), file)
    return models


def _clip_score_folders() -> list[Path]:
    # In addition to folders named in the host's extra_model_paths.yaml.
    folder_paths.add_model_folder_path("clip_score", str(Path(folder_paths.models_dir) / "clip_score"))
    return [Path(folder) for folder in folder_paths.get_folder_paths("clip_score")]


def input_folder(text: str) -> Path:
    """Path of a folder that a person typed: absolute, with `~`, or relative to the host's input folder.

    Raises:
        AtelierError: it is empty, not a folder, or one that a graph may not read.
    """
    if not text.strip():
        raise AtelierError("No folder is given.",
                           "Type the path of a folder, or the name of one in ComfyUI's input folder.")
    typed = typed_path(text)
    # Before the question whether it exists, whose answer is nobody's business.
    path = check_read(typed if typed.is_absolute() else Path(folder_paths.get_input_directory()) / typed)
    if not path.is_dir():
        raise AtelierError(f"{path} is not a folder.",
                           "Type an existing folder: an absolute path, or one relative to ComfyUI's input folder.")
    return path


def new_input_folder(name: str) -> Path:
    """Path of a folder that is to be written, or that was written, in the host's input folder.

    Args:
        name: A name that the pack itself chose, never one from a graph.

    Raises:
        AtelierError: a link leads out of ComfyUI's folders.
    """
    return check_read(Path(folder_paths.get_input_directory()) / name)


def is_input_folder(name: str) -> bool:
    """Whether the host's input folder has a folder of this relative path."""
    return (Path(folder_paths.get_input_directory()) / name).is_dir()


def input_pictures() -> list[str]:
    """Names of the pictures in the host's input folder."""
    folder = Path(folder_paths.get_input_directory())
    names = [path.name for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []
    return sorted(folder_paths.filter_files_content_types(names, ["image"]))


def has_input_file(name: str) -> bool:
    """Whether there is a file of this name, which comes from `input_pictures` or from an upload."""
    return bool(folder_paths.exists_annotated_filepath(name))


def input_file(name: str) -> Path:
    """Path of an input file; the name may end with the host's mark for another folder, as in "a.png [output]"."""
    return Path(folder_paths.get_annotated_filepath(name))


def disk_state(path: Path) -> str:
    """Digest of names, sizes and modification times of a file, or of all files below a folder; no file is read.

    Links to folders are followed. Meant for `fingerprint_inputs`: the digest changes when a file does.
    """
    digest = hashlib.sha256()
    for file in sorted(p for p in files_below(path) if p.is_file()) if path.is_dir() else [path]:
        status = file.stat()
        digest.update(f"{file.relative_to(path).as_posix()}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def output_folder() -> Path:
    """The host's output folder."""
    return Path(folder_paths.get_output_directory())


def next_output_file(name: str, ending: str) -> tuple[Path, str]:
    """Path of a new file in the output folder, numbered as the host's own nodes number files, and its subfolder.

    Args:
        name: Path below the output folder, with / between folders.
        ending: What follows the number, such as ".webp".

    Raises:
        AtelierError: a link leads out of the folders that a graph may write.
    """
    check_written(output_folder() / name)  # before the host creates the folder
    folder, stem, number, subfolder, _ = folder_paths.get_save_image_path(name, str(output_folder()))
    while (path := Path(folder) / f"{stem}_{number:05}_{ending}").exists():
        number += 1
    return path, subfolder


def use_host_tokenizer() -> None:
    """Let the library build CLIP's tokenizer from the host's copy of the vocabulary."""
    from ...atelier.models.tokenizer import use_tokenizer

    folder = Path(comfy.model_management.__file__ or "").parent / "sd1_tokenizer"
    use_tokenizer(folder if (folder / "merges.txt").is_file() else None)
