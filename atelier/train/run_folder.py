"""The folder of a run, and the LoRA that it publishes among the user's LoRA files.

A run's folder is named by the digest of model, pictures and configuration, so that the same request finds its own
finished result or the state to go on from.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from ..errors import AtelierError, NameTaken
from ..files import write_json
from ..lora.file import load_lora, read_metadata, save_lora


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run."""

    folder: Path

    @property
    def state(self) -> Path:
        """What training goes on from after an interruption."""
        return self.folder / "state.safetensors"

    @property
    def best(self) -> Path:
        """The LoRA of the best look so far."""
        return self.folder / "best.safetensors"

    @property
    def last(self) -> Path:
        """The LoRA of the last step done."""
        return self.folder / "last.safetensors"

    def at(self, step: int) -> Path:
        """The LoRA kept at `step`."""
        return self.folder / f"step-{step:06d}.safetensors"

    def sample(self, step: int) -> Path:
        """The sample picture drawn after `step`."""
        return self.folder / "samples" / f"step-{step:06d}.png"

    @property
    def samples(self) -> list[Path]:
        """Sample pictures so far, oldest first."""
        return list(self.drawn.values())

    @property
    def drawn(self) -> dict[int, Path]:
        """Sample pictures so far by the step they were drawn after, oldest first."""
        steps = ((path.stem.removeprefix("step-"), path) for path in (self.folder / "samples").glob("step-*.png"))
        return dict(sorted((int(step), path) for step, path in steps if step.isdecimal()))

    @property
    def plot(self) -> Path:
        """The loss curve."""
        return self.folder / "loss.png"

    @property
    def report(self) -> Path:
        """Written last; a run that has one is finished."""
        return self.folder / "report.json"

    def write_report(self, values: Mapping[str, Any]) -> None:
        """Write the report, which marks the run as finished."""
        write_json(self.report, dict(values))

    def read_report(self) -> dict[str, Any] | None:
        """The report of a finished run, or None.

        Raises:
            AtelierError: the file is damaged.
        """
        try:
            return json.loads(self.report.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise AtelierError(f"The report {self.report} is damaged ({error}).",
                               "Delete that file to train again.") from error


log = logging.getLogger("atelier")

_ENDING = ".safetensors"


@dataclass(frozen=True)
class LoraOutput:
    """Where one run puts its finished LoRA, and until then what it has learnt.

    Whose a file is says its header (`atelier.run` and the name it was asked for); one that cannot be read belongs to
    somebody else.
    """

    folder: Path
    """Of all LoRA files."""
    name: str
    """Of the file, without ending; may lead through subfolders."""
    run: str
    """The run's digest."""
    format: str
    """Key format of what is written."""

    def publish(self, source: Path) -> Path:
        """Put the result `source` under the name, numbered if others have it, or find it there.

        Raises:
            AtelierError: the source is not readable or the folder not writable.
        """
        own = self._own(self.name)
        if own and read_metadata(own[0]).get("ss_steps") == read_metadata(source).get("ss_steps"):
            return own[0]
        return self._write(own[0], source) if own else self._write_new(self.name, source)

    def keep_partial(self, source: Path) -> Path:
        """Put what an unfinished run has learnt beside the finished files.

        Raises:
            AtelierError: as for `publish`.
        """
        own = self._own(self._partial)
        return self._write(own[0], source) if own else self._write_new(self._partial, source)

    def drop_partial(self) -> None:
        """Remove what `keep_partial` left. A file that another program holds open stays; the log names it."""
        for path in self._own(self._partial):
            try:
                path.unlink()
            except OSError as error:  # on Windows, a file that is open in a loader
                log.warning("%s is no longer needed but could not be removed (%s).", path, error)

    @property
    def _partial(self) -> str:
        return f"{self.name}-partial"

    def _write(self, path: Path, source: Path, *, replace: bool = True) -> Path:
        header = {**read_metadata(source), "ss_output_name": self.name, "modelspec.title": self.name}
        return save_lora(path, load_lora(source), format=self.format, metadata=header, replace=replace)

    def _write_new(self, name: str, source: Path) -> Path:
        for number in count(1):
            path = self._numbered(name, number)
            if not path.exists():
                with suppress(NameTaken):  # by another process, meanwhile
                    return self._write(path, source, replace=False)
        raise AssertionError("numbers do not end")

    def _numbered(self, name: str, number: int) -> Path:
        return self.folder / f"{name}{'' if number == 1 else f'-{number}'}{_ENDING}"

    def _own(self, name: str) -> list[Path]:
        """This run's files called `name` or `name` with a number, lowest number first."""
        first = self._numbered(name, 1)
        if not first.parent.is_dir():
            return []
        stem = first.name.removesuffix(_ENDING)
        pattern = re.compile(re.escape(stem) + r"(?:-([1-9]\d*))?" + re.escape(_ENDING))
        found = ((pattern.fullmatch(path.name), path) for path in first.parent.iterdir())
        numbered = sorted((int(match[1] or 1), path) for match, path in found if match)
        return [path for _, path in numbered if self._is_own(path)]

    def _is_own(self, path: Path) -> bool:
        try:
            header = read_metadata(path)
        except AtelierError:  # a cut download, a pointer to large file storage: not written here
            return False
        # The name, too: `a-partial` may be what `a` has learnt so far or what the same run gave under that name.
        return header.get("atelier.run") == self.run and header.get("ss_output_name") == self.name
