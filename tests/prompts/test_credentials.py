"""Credentials: where keys come from, where they may be sent, and that no message repeats one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atelier.errors import AtelierError
from atelier.prompts.credentials import Credential, CredentialStore
from atelier.prompts.endpoints import ENDPOINTS, plain_url

SECRET = "sk-canary-0123456789abcdef"
OPENAI = ENDPOINTS["OpenAI"].base_url


def keys(tmp_path: Path, text: str = "", **environ: str) -> CredentialStore:
    file = tmp_path / "credentials.toml"
    if text:
        file.write_text(text, encoding="utf-8")
        file.chmod(0o600)
    return CredentialStore(file, environ)


# Credentials --------------------------------------------------------------------------------------------------------

def test_a_key_comes_from_the_environment(tmp_path: Path) -> None:
    assert keys(tmp_path, OPENAI_API_KEY=f" {SECRET}\n").get("OPENAI_API_KEY", OPENAI).secret == SECRET


def test_a_key_and_its_addresses_come_from_the_file(tmp_path: Path) -> None:
    store = keys(tmp_path, f'[MINE]\nkey = "{SECRET}"\nbase_urls = ["https://llm.example.org/v1"]\n')
    assert store.get("MINE", "https://LLM.example.org:443/v1/").secret == SECRET
    assert store.get("MINE", "https://llm.example.org/v1/tenant").secret == SECRET
    assert "MINE" in store.names() and SECRET not in str(store.names())


def test_the_file_may_bind_a_key_of_the_environment(tmp_path: Path) -> None:
    store = keys(tmp_path, '[MINE]\nbase_urls = ["http://10.0.0.5:8000/v1"]\n', MINE=SECRET)
    assert store.get("MINE", "http://10.0.0.5:8000/v1").secret == SECRET


@pytest.mark.parametrize("address", [
    "https://evil.example/v1", "http://api.openai.com/v1", "https://api.openai.com:8443/v1", "https://api.openai.com",
    "https://api.openai.com/v2", "https://api.openai.com/v1x", "https://api.openai.com.evil.example/v1",
    "https://sub.api.openai.com/v1", "http://127.0.0.1/v1", "https://api.openai.com\u3002evil.example/v1",
])
def test_a_workflow_cannot_redirect_a_key(tmp_path: Path, address: str) -> None:
    with pytest.raises(AtelierError, match="may not be sent to") as caught:
        keys(tmp_path, OPENAI_API_KEY=SECRET).get("OPENAI_API_KEY", address)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("address", [
    "https://api.openai.com@evil.example/v1", "https://api.openai.com/v1/../../x", "https://api.openai.com/v1/%2e%2e/x",
    "https://api.openai.com\\@evil.example/v1", "https://api.openai.com/v1?x=1", "https://api.openai.com/v1#x",
    "file:///etc/passwd", "api.openai.com/v1", "", "https://", "https://[::1/v1", "https://a b/v1",
    "https://h:99999/v1",
    "https://a\u200bb/v1", "https://a/v\u200b1", "https://a/v\x001",
])
def test_ambiguous_addresses_are_refused(address: str) -> None:
    with pytest.raises(AtelierError):
        plain_url(address)


def test_other_variables_of_the_environment_are_no_credentials(tmp_path: Path) -> None:
    with pytest.raises(AtelierError, match="may not be sent") as caught:
        keys(tmp_path, AWS_SECRET_ACCESS_KEY=SECRET).get("AWS_SECRET_ACCESS_KEY", "https://evil.example/v1")
    assert SECRET not in str(caught.value)


def test_a_pasted_key_is_refused_and_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(AtelierError, match="not a name") as caught:
        keys(tmp_path).get(SECRET, OPENAI)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("value", ["", "   "])
def test_a_missing_key_says_where_to_put_it(tmp_path: Path, value: str) -> None:
    with pytest.raises(AtelierError, match="environment variable OPENAI_API_KEY"):
        keys(tmp_path, OPENAI_API_KEY=value).get("OPENAI_API_KEY", OPENAI)


@pytest.mark.parametrize("value", ["sk-1\r\nX-Header:1", "sk-1 23", "sk-1é"])
def test_a_key_that_cannot_be_one_is_not_sent(tmp_path: Path, value: str) -> None:
    with pytest.raises(AtelierError, match="no key has") as caught:
        keys(tmp_path, OPENAI_API_KEY=value).get("OPENAI_API_KEY", OPENAI)
    assert "sk-1" not in str(caught.value)


@pytest.mark.parametrize("text", [f'[MINE]\nkey = "{SECRET}', f"[MINE]\nkey = {SECRET}",
                                  f'[MINE]\nkey = "{SECRET}"\nbase_urls = "https://x.example"'])
def test_an_error_about_a_broken_file_omits_its_content(tmp_path: Path, text: str) -> None:
    with pytest.raises(AtelierError) as caught:
        keys(tmp_path, text).get("MINE", "https://x.example")
    assert "canary" not in str(caught.value)
    assert keys(tmp_path, text).names()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_file_that_others_can_read_is_not_used(tmp_path: Path, mode: int) -> None:
    store = keys(tmp_path, f'[MINE]\nkey = "{SECRET}"\nbase_urls = ["https://x.example"]\n')
    (tmp_path / "credentials.toml").chmod(mode)
    if os.name == "posix":
        with pytest.raises(AtelierError, match="chmod 600"):
            store.get("MINE", "https://x.example")


@pytest.mark.skipif(os.name != "posix", reason="there are no modes")
@pytest.mark.parametrize("cause", ["modes are fixed", "read-only", "someone else's"])
def test_a_file_whose_mode_cannot_be_set_is_used_with_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                                cause: str, caplog: pytest.LogCaptureFixture) -> None:
    """As on Windows' drives in WSL, in shared folders of Docker, and for secrets that are mounted read-only."""
    store = keys(tmp_path, f'[MINE]\nkey = "{SECRET}"\nbase_urls = ["https://x.example"]\n')
    (tmp_path / "credentials.toml").chmod(0o644)
    if cause == "modes are fixed":
        stat_of = Path.stat

        def with_all_modes(self: Path, **options: Any) -> os.stat_result:
            found = stat_of(self, **options)
            return os.stat_result((found.st_mode | 0o777, *found[1:]))

        monkeypatch.setattr(Path, "stat", with_all_modes)
    elif cause == "read-only":
        def refused(*_: object, **__: object) -> None:
            raise OSError(30, "Read-only file system")

        monkeypatch.setattr(tempfile, "NamedTemporaryFile", refused)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1000)
    assert store.get("MINE", "https://x.example").secret == SECRET
    assert "MINE" in store.names()
    assert caplog.text.count("its mode cannot be changed here") == 1 and SECRET not in caplog.text


@pytest.mark.parametrize("text", ["[MINE", f'[MINE]\nkey = "{SECRET}"'], ids=["broken", "open to others"])
def test_a_file_that_cannot_be_used_is_not_in_the_way_of_the_environment(tmp_path: Path, text: str,
                                                                         caplog: pytest.LogCaptureFixture) -> None:
    store = keys(tmp_path, text, OPENAI_API_KEY=f"{SECRET}-of-the-environment", MINE=SECRET)
    (tmp_path / "credentials.toml").chmod(0o644 if "key" in text else 0o600)
    if os.name != "posix" and "key" in text:
        pytest.skip("there are no modes")
    assert store.get("OPENAI_API_KEY", OPENAI).secret == f"{SECRET}-of-the-environment"
    assert "is taken from the environment" in caplog.text and "canary" not in caplog.text
    for name, address in (("MINE", "https://x.example"), ("OPENAI_API_KEY", "https://x.example")):
        with pytest.raises(AtelierError, match=r"chmod 600|not valid TOML"):
            store.get(name, address)


def test_a_credentials_file_that_cannot_be_read_does_not_break_the_list(tmp_path: Path) -> None:
    file = tmp_path / "credentials.toml"
    file.write_bytes(b"\xff\xfe\x00")
    file.chmod(0o600)
    store = CredentialStore(file, {})
    assert "OPENAI_API_KEY" in store.names()
    with pytest.raises(AtelierError, match="not valid TOML"):
        store.get("OPENAI_API_KEY", OPENAI)


def test_reprs_hold_no_key(tmp_path: Path) -> None:
    store = keys(tmp_path, OPENAI_API_KEY=SECRET)
    assert SECRET not in repr(store) + repr(store.get("OPENAI_API_KEY", OPENAI))


@given(before=st.text(max_size=20), after=st.text(max_size=20), start=st.integers(0, 17), length=st.integers(8, 26))
def test_every_run_of_eight_characters_of_a_key_is_masked(before: str, after: str, start: int, length: int) -> None:
    piece = SECRET[start:start + length]
    masked = Credential("KEY", SECRET).redact(before + piece + after)
    if len(piece) >= 8:
        assert piece not in masked and "[KEY]" in masked
    assert Credential("KEY", SECRET).redact("a cat, neon") == "a cat, neon"


@pytest.mark.parametrize("placeholder", ["none", "dummy", "ollama", "EMPTY"])
def test_a_placeholder_for_a_local_server_masks_no_words(placeholder: str) -> None:
    assert Credential("MY_KEY", placeholder).redact(f"{placeholder}, ugly") == f"{placeholder}, ugly"


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    store = keys(tmp_path, f'\ufeff[MINE]\nkey = "{SECRET}"\nbase_urls = ["https://x.example"]\n')
    assert store.get("MINE", "https://x.example").secret == SECRET


def test_a_file_that_the_disk_does_not_give_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path, **_: object) -> str:
        raise PermissionError(13, "Permission denied")

    store = keys(tmp_path, f'[MINE]\nkey = "{SECRET}"\nbase_urls = ["https://x.example"]\n')
    monkeypatch.setattr(Path, "read_text", refused)
    with pytest.raises(AtelierError, match=r"credentials\.toml cannot be read: Permission denied\. Make it your own"):
        store.get("MINE", "https://x.example")
