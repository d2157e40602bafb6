"""Shared options of verbs, and results printed as text or JSON."""

from __future__ import annotations

import argparse
import json
from typing import Any


def add_json(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the option `--json`."""
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def add_device(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the option `--device`."""
    parser.add_argument("--device", default="auto", help="torch device, such as cuda:1, mps or cpu (default: the best)")


def show(arguments: argparse.Namespace, text: str, values: Any) -> None:
    """Print a result: `text`, or `values` as JSON if `--json` was given."""
    print(json.dumps(values, ensure_ascii=False, indent=2, default=str) if arguments.json else text)
