"""The command line: verbs, exit codes and error messages.

Exit code 0 is success, 2 wrong use (argparse's own), 1 a failure or an interrupt. Results go to standard output,
progress and errors to standard error, so that `--json` output can be piped.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from .. import __version__
from ..errors import AtelierError
from ..progress import Interrupted
from . import (
    caption,
    convert,
    demo,
    generate,
    grid,
    inspect,
    lora_convert,
    lora_extract,
    lora_merge,
    lora_resize,
    score,
    train,
)
from .output import VerbParser
from .progress import graceful_interrupts

VERBS = (inspect, convert, lora_convert, lora_resize, lora_merge, lora_extract, caption, train, generate, score, grid,
         demo)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb.

    Args:
        arguments: Those after the program's name; None takes the process's own.

    Returns:
        The exit code.
    """
    _use_utf8()
    parser = command_parser()
    if not (sys.argv[1:] if arguments is None else arguments):
        parser.print_help(sys.stderr)
        return 2
    parsed = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("atelier").setLevel(logging.DEBUG if parsed.verbose else logging.INFO)
    _silence_libraries()
    try:
        with graceful_interrupts():
            parsed.run(parsed)
    except AtelierError as error:
        print(f"atelier: {error}", file=sys.stderr)
        return 1
    except (Interrupted, KeyboardInterrupt):
        print("atelier: Interrupted. What was finished is kept; run the same command again to go on.", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader (such as `head`) closed the pipe; redirect stdout, or Python raises again when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        logging.getLogger("atelier").debug("Where it happened:", exc_info=True)
        print(f"atelier: {_system_error(error)}", file=sys.stderr)
        return 1
    return 0


def command_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="atelier", description="Convert Stable Diffusion models, train LoRAs, generate, score, compose.")
    parser.add_argument("--version", action="version", version=f"atelier {__version__}")
    parser.add_argument("--verbose", action="store_true", help="log what happens in detail")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True, parser_class=VerbParser)
    for verb in VERBS:
        verb.add(verbs)
    return parser


def _system_error(error: OSError) -> str:
    """One line on an operating system error, such as a name that is too long."""
    what = " ".join(str(error.strerror or error).split())
    where = f"{error.filename}: " if error.filename is not None else ""
    return f"{where}{what}. Check the path, and run again."


def _use_utf8() -> None:
    """Write UTF-8: a Windows console's code page cannot hold all captions and file names."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors="replace")


def _silence_libraries() -> None:
    """Turn off the libraries' own progress bars and advice; the shell shows progress itself."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
