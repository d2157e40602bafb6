"""Names for new files hold on every system and stay in their folder."""

from __future__ import annotations

import pytest

from atelier.errors import AtelierError
from atelier.files import file_name


@pytest.mark.parametrize("text", ["cat", "my LoRA 2", "Über-Katze", "猫", "v1.5", "a.b.c", "lpt10"])
def test_good_names_stay(text: str) -> None:
    assert file_name(text) == text


def test_folders_and_spaces_around() -> None:
    assert file_name("  styles\\pencil/soft ") == "styles/pencil/soft"


@pytest.mark.parametrize("text", ["", "  ", "/etc/cat", "..", "../cat", "a/../../cat", "a//b", "a/", "C:\\cat", "cat.",
                                  "a /b", "what?", "a*b", "CON", "con.txt", "Com1", "aux .x", "tab\tbed", "x" * 300])
def test_bad_names_are_refused(text: str) -> None:
    with pytest.raises(AtelierError, match="cannot be a file name"):
        file_name(text)
