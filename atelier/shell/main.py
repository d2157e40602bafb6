"""The command line: verbs, exit codes, and what a failure says.

Exit code 0 is success, 2 wrong use (argparse's own), 1 a failure or an interrupt. Results go to standard output,
progress and errors to standard error, so that `--json` output can be piped.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from ..errors import AtelierError
from ..progress import Interrupted
from . import convert, demo, generate, grid, inspect, lora_convert, score, train
from .progress import interrupts_kept

VERBS = (inspect, convert, lora_convert, train, generate, score, grid, demo)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb.

    Args:
        arguments: Those after the program's name; None takes the process's own.

    Returns:
        The exit code.
    """
    _speak_utf8()
    parsed = _parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("atelier").setLevel(logging.DEBUG if parsed.verbose else logging.INFO)
    _quieten_libraries()
    try:
        with interrupts_kept():
            parsed.run(parsed)
    except AtelierError as error:
        print(f"atelier: {error}", file=sys.stderr)
        return 1
    except (Interrupted, KeyboardInterrupt):
        print("atelier: Interrupted. What was finished is kept; run the same command again to go on.", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Whoever read the output (`head`) has enough; Python would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        logging.getLogger("atelier").debug("Where it happened:", exc_info=True)
        print(f"atelier: {_system_error(error)}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="atelier", description="Convert Stable Diffusion models, train LoRAs, generate, score, compose.")
    parser.add_argument("--verbose", action="store_true", help="log what happens in detail")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for verb in VERBS:
        verb.add(verbs)
    return parser


def _system_error(error: OSError) -> str:
    """One line on what the operating system refused, such as a path below a file or a name that is too long."""
    what = " ".join(str(error.strerror or error).split())
    where = f"{error.filename}: " if error.filename is not None else ""
    return f"{where}{what}. Check the path, and run again."


def _speak_utf8() -> None:
    """Captions and file names go beyond what a Windows console's code page holds."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors="replace")


def _quieten_libraries() -> None:
    """Progress is shown here; the libraries' own bars and advice for their callers would only get between."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
