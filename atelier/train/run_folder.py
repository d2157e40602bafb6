"""The folder of a run, and the LoRA that it publishes among the user's LoRA files.

A run's folder is named by the run's identity (see `atelier.train.identity`), so that the same request finds its own
finished result or the state to resume from.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

from ..errors import AtelierError, NameTaken
from ..files import write_json
from ..lora.dtypes import torch_dtype
from ..lora.file import load_lora, read_metadata, save_lora

log = logging.getLogger("atelier")


@dataclass(frozen=True)
class RoundScore:
    """The mean scores of one round of sample pictures, cosines (see `atelier.train.sample_scores`)."""

    fidelity: float
    likeness: float


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run."""

    path: Path
    sample_settings: str = ""
    """Digest of how sample pictures are drawn: those of other settings lie in folders of their own."""
    round_size: int = 1
    """Sample pictures of one round."""

    @property
    def state(self) -> Path:
        """The state that training resumes from. It stays after the end, so that a run can be made longer."""
        return self.path / "state.safetensors"

    @property
    def best(self) -> Path:
        """The LoRA of the best validation so far."""
        return self.path / "best.safetensors"

    @property
    def last(self) -> Path:
        """The LoRA of the last step done."""
        return self.path / "last.safetensors"

    def at(self, step: int) -> Path:
        """The LoRA kept at `step`."""
        return self.path / f"step-{step:06d}.safetensors"

    @property
    def saved(self) -> dict[int, Path]:
        """The LoRAs kept so far by their steps, oldest first."""
        steps = ((path.stem.removeprefix("step-"), path) for path in self.path.glob("step-*.safetensors"))
        return dict(sorted((int(step), path) for step, path in steps if step.isdecimal()))

    @property
    def sample_folder(self) -> Path:
        """The folder of the sample pictures."""
        return self.path / f"samples{'-' if self.sample_settings else ''}{self.sample_settings}"

    def sample(self, step: int, number: int = 0) -> Path:
        """A sample picture drawn after `step`, by its number in the round."""
        return self.sample_folder / f"step-{step:06d}{f'-{number + 1}' if number else ''}.png"

    @property
    def samples(self) -> list[Path]:
        """Sample pictures of whole rounds so far, oldest first."""
        return [path for round_ in self.drawn.values() for path in round_]

    @property
    def drawn(self) -> dict[int, list[Path]]:
        """The whole rounds of sample pictures so far, by the step they were drawn after, oldest first."""
        steps = (path.stem.removeprefix("step-") for path in self.sample_folder.glob("step-*.png"))
        rounds = {step: [self.sample(step, number) for number in range(self.round_size)]
                  for step in sorted(int(step) for step in steps if step.isdecimal())}
        return {step: paths for step, paths in rounds.items() if all(path.is_file() for path in paths)}

    @property
    def scores(self) -> dict[int, RoundScore]:
        """The scores of rounds so far by their steps; empty where the file is damaged, which costs no more than them.
        """
        try:
            values = json.loads(self._scores.read_text(encoding="utf-8"))
            return {int(step): RoundScore(float(score["fidelity"]), float(score["likeness"]))
                    for step, score in sorted(values.items(), key=lambda item: int(item[0]))}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            log.warning("The scores in %s are not shown: %s", self._scores, error)
            return {}

    def write_score(self, step: int, score: RoundScore | None) -> None:
        """Add the score of a round, or take away what was there for its step."""
        scores = {known: asdict(value) for known, value in self.scores.items() if known != step}
        write_json(self._scores, scores | ({step: asdict(score)} if score else {}))

    @property
    def _scores(self) -> Path:
        return self.sample_folder / "scores.json"

    @property
    def plot(self) -> Path:
        """The loss curve."""
        return self.path / "loss.png"

    @property
    def report(self) -> Path:
        """Written last; a run that has one is finished."""
        return self.path / "report.json"

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


_ENDING = ".safetensors"
_STORED_AS = "kohya fp32"
"""What a file without the header `atelier.stored_as` is."""


@dataclass(frozen=True)
class LoraOutput:
    """The LoRA file of a run among those of the user: the finished one, and until then what was learnt so far.

    The header of a file says which run wrote it (`atelier.run`) and under which name it was asked for. A file whose
    header cannot be read is treated as another program's and left alone.
    """

    folder: Path
    """Of all LoRA files."""
    name: str
    """Of the file, without ending; may lead through subfolders."""
    run: str
    """The run's identity."""
    format: str = "kohya"
    """Keys of the written file: "kohya" or "diffusers"."""
    dtype: str = "fp32"
    """Storage type of the written file: "fp32", "fp16" or "bf16"."""

    def publish(self, source: Path) -> Path:
        """Put the result `source` under the name, numbered if others have it, or find it there.

        Raises:
            AtelierError: the source is not readable or the folder not writable.
        """
        own = self._own(self.name)
        if own and self._is_current(own[0], source):
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
        if self._stored_as != _STORED_AS:
            header["atelier.stored_as"] = self._stored_as
        return save_lora(path, load_lora(source), format=self.format, metadata=header, dtype=torch_dtype(self.dtype),
                         replace=replace)

    @property
    def _stored_as(self) -> str:
        return f"{self.format} {self.dtype}"

    def _is_current(self, path: Path, source: Path) -> bool:
        """Whether the file holds the weights of `source`, in the wanted format."""
        header = read_metadata(path)
        return (header.get("ss_steps") == read_metadata(source).get("ss_steps")
                and header.get("atelier.stored_as", _STORED_AS) == self._stored_as)

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
