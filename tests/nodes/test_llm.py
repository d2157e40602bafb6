"""Language Model: the address and the credential that an endpoint stands for."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from kit.node_calls import run_node
from kit.pack import pack_module

pytestmark = pytest.mark.host


def described(nodes: dict[str, Any], **inputs: Any) -> Any:
    return run_node(nodes["AtelierLLM"], **{"credential": "by endpoint", **inputs})[0]


@pytest.mark.parametrize(("endpoint", "address", "credential"), [
    ("OpenAI", "https://api.openai.com/v1", "OPENAI_API_KEY"), ("Ollama", "http://127.0.0.1:11434/v1", "none"),
    ("Gemini", "https://generativelanguage.googleapis.com/v1beta/openai", "GOOGLE_API_KEY")])
def test_an_endpoint_brings_its_address_and_credential(nodes: dict[str, Any], endpoint: str, address: str,
                                                       credential: str) -> None:
    model = described(nodes, endpoint=endpoint)
    assert (model.base_url, model.credential, model.model) == (address, credential, "gpt-4o-mini")
    assert described(nodes, endpoint=endpoint, credential="MY_KEY").credential == "MY_KEY"


def test_a_custom_endpoint_has_the_typed_address_and_no_key(nodes: dict[str, Any]) -> None:
    model = described(nodes, endpoint="custom", base_url="http://127.0.0.1:8000/v1", temperature=0.25)
    assert (model.base_url, model.credential, model.temperature) == ("http://127.0.0.1:8000/v1", "none", 0.25)


def test_an_address_beside_another_endpoint_is_refused(nodes: dict[str, Any], pack: ModuleType) -> None:
    """The questions would go to a service that the person believes replaced."""
    with pytest.raises(pack_module(pack, "atelier.errors").AtelierError,
                       match=r"base_url is filled in, but the endpoint is OpenAI\..*endpoint custom"):
        described(nodes, endpoint="OpenAI", base_url="http://127.0.0.1:8000/v1")
    assert described(nodes, endpoint="OpenAI", base_url="  ").base_url == "https://api.openai.com/v1"
