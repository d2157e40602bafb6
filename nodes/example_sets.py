"""The example sets that Write Prompt offers."""

from __future__ import annotations

from ..atelier.prompts.examples import SHIPPED, ExampleLibrary
from .host import folders

NO_EXAMPLES = "none"


def example_library() -> ExampleLibrary:
    """The example sets of the user, then those that come with the pack."""
    return ExampleLibrary((folders.work_folder("examples"), SHIPPED))
