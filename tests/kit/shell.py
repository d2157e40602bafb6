"""The shell's verbs in this process."""

from __future__ import annotations

import pytest

from atelier.shell.main import main


def shell(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as wrong_use:
        code = int(str(wrong_use.code))
    out = capsys.readouterr()
    return code, out.out, out.err
