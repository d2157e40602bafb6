"""Shared options of verbs, and results printed as text or JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any


class VerbParser(argparse.ArgumentParser):
    """A verb's arguments. What its help ends with is made only where help is asked for."""

    details: Callable[[], str] | None = None

    def format_help(self) -> str:
        """The usual help, and the details."""
        if self.details is not None:
            self.epilog = self.details()
        return super().format_help()


def add_json(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the option `--json`."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def add_device(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the option `--device`."""
    parser.add_argument("--device", default="auto", help="torch device, such as cuda:1, mps or cpu (default: the best)")


def show(arguments: argparse.Namespace, text: str, values: Any) -> None:
    """Print a result: `text`, or `values` as JSON if `--json` was given."""
    print(json.dumps(values, ensure_ascii=False, indent=2, default=str) if arguments.json else text)
