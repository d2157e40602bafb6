"""Restore Faces: restore faces with a model such as GFPGAN."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..atelier.errors import AtelierError
from .host.images import run_image_model
from .host.progress import HostProgress


class RestoreFaces(io.ComfyNode):
    """Aligns each face, restores it, and pastes it back."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="AtelierRestoreFaces",
            display_name="Restore Faces",
            category="Atelier/picture",
            description="Restores each face with a model such as GFPGAN: turned upright as the model knows faces, "
                        "restored, and put back with a soft edge. The rest of the picture stays as it is.",
            search_aliases=["gfpgan", "codeformer", "face", "restore", "detailer"],
            is_output_node=True,
            inputs=[
                io.Image.Input("image", tooltip="Pictures with or without faces."),
                io.Custom("FACE_LANDMARKS").Input("face_landmarks", tooltip="From core's MediaPipe Face Landmarker, on "
                                                                            "the same pictures. Set its num_faces."),
                io.UpscaleModel.Input("restoration_model", tooltip="From core's Load Upscale Model: GFPGAN, "
                                                                   "RestoreFormer and their like."),
                io.Float.Input("strength", default=0.8, min=0, max=1, step=0.05,
                               tooltip="0 keeps the faces, 1 replaces them entirely."),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The pictures with restored faces."),
                io.Int.Output(display_name="faces", tooltip="How many faces were restored."),
                io.String.Output(display_name="report", tooltip="How many in which picture."),
            ],
        )

    @classmethod
    def execute(cls, image: Any, face_landmarks: dict[str, Any], restoration_model: Any,
                strength: float) -> io.NodeOutput:
        """Restore picture by picture; a picture without faces does not change."""
        import torch

        from ..atelier.faces import can_be_aligned, five_points, restore

        frames = face_landmarks["frames"]
        if len(frames) != len(image) or tuple(face_landmarks["image_size"]) != tuple(image.shape[1:3]):
            raise AtelierError(f"The landmarks are of {len(frames)} pictures of other size or number than the "
                               f"{len(image)} given.", "Connect the same pictures to both nodes.")
        progress = HostProgress()
        progress.phase("restoring faces", len(image))
        model = _GfpganRange(restoration_model) if restoration_model.architecture.id == "GFPGAN" else restoration_model
        restored, lines, total = [], [], 0
        for number, (picture, faces) in enumerate(zip(image, frames, strict=True), 1):
            progress.check()
            candidates = [five_points(face["landmarks_xy"]) for face in faces]
            points = [each for each in candidates if can_be_aligned(each)]
            restored.append(restore(picture, points, lambda face: run_image_model(model, face), strength))
            lines.append(f"picture {number}: {_faces_text(len(points), len(candidates) - len(points))}")
            total += len(points)
            progress.advance(number)
        report = "\n".join(lines)
        return io.NodeOutput(torch.stack(restored), total, report, ui={"text": (report,)})


class _GfpganRange:
    """Runs GFPGAN with inputs and outputs of -1 to 1, as it was trained and as its authors run it (GFPGANer.enhance).

    The host's loader library feeds it 0 to 1 and clamps its output to that, which loses the darker half. The noise is
    that stored in the model file, so that the same picture gives the same face.
    """

    def __init__(self, model: Any) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        """Forward everything else that the host reads, such as its scale and device."""
        return getattr(self._model, name)

    def __call__(self, pictures: Any) -> Any:
        """Restore faces `[B, 3, 512, 512]`, 0..1; the result has the same shape and range."""
        output, _ = self._model.model(pictures * 2 - 1, return_rgb=False, randomize_noise=False)
        return (output + 1) / 2


def _faces_text(restored: int, left_out: int) -> str:
    """A line for the report about the faces of one picture."""
    if not restored and not left_out:
        return "no face found, unchanged"
    words = f"{restored} {'face' if restored == 1 else 'faces'} restored"
    return words + (f", {left_out} left out: smaller than a pixel, or without a place" if left_out else "")
