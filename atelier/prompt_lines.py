"""Several prompts in one text, one a line, and what they share: for Prompt List, and for who reads its graphs."""

from __future__ import annotations


def prompt_lines(text: str) -> list[str]:
    """The lines that are prompts: not empty, and not beginning with #."""
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def styled(line: str, before: str, after: str) -> str:
    """A line with what stands before and after each; a space between the parts, but none before punctuation."""
    start = before.rstrip() + " " if before.strip() else ""
    end = after if after.startswith((",", ".", ";", " ")) or not after.strip() else f" {after}"
    return f"{start}{line}{end.rstrip()}"
