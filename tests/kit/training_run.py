"""A short training request on small pictures, and ways to interrupt or watch its run."""

from __future__ import annotations

from kit.training_loop import request as training_request

from atelier.dataset.folder import FolderOptions
from atelier.dataset.types import Resolution
from atelier.progress import Interrupted, Progress

REQUEST = training_request(dict(rank=4, alpha=8), dict(monitor="off", patience=0, learning_rate=1e-3),
                     steps=3)
FOLDER = FolderOptions(resolution=Resolution(64))


class After(Progress):
    """Interrupts once so many steps are done."""

    def __init__(self, steps: int) -> None:
        self.steps, self.done, self.phases = steps, 0, []

    def phase(self, name: str, total: int) -> None:
        self.phases.append(name)

    def measure(self, values) -> None:
        self.done = int(values["step"])

    def check(self) -> None:
        if self.done >= self.steps > 0:
            raise Interrupted


class Seen(After):
    """Notes after which steps it is shown pictures."""

    def __init__(self) -> None:
        super().__init__(0)
        self.pictures: list[int] = []

    def preview(self, image) -> None:
        self.pictures.append(self.done)
