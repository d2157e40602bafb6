"""The `openai` package: import it, and say what is wrong with the one that is installed.

Packs share one Python environment, so that another pack may have put an older version there.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import Any

from ..errors import AtelierError, MissingPackage

LEAST_VERSION = "1.50"
"""The oldest version that was tested; `requirements.txt` has the same."""
_NEEDED = ("AsyncOpenAI", "DefaultAsyncHttpxClient", "Timeout", "OpenAIError", "APIStatusError", "APIConnectionError")
_UPDATE = f'Update it with: pip install -U "openai>={LEAST_VERSION}", then start again.'


def openai_package() -> Any:
    """The module `openai`, with everything that the client needs.

    Raises:
        MissingPackage: it is not installed.
        AtelierError: it is too old, or cannot be imported.
    """
    try:
        openai = importlib.import_module("openai")
    except ImportError as error:
        if error.name == "openai":
            raise MissingPackage("openai", "Writing prompts with a language model") from None
        raise _broken(error) from None
    # What old versions raise when they meet newer versions of the packages they are built on.
    except (AttributeError, TypeError, ValueError, RuntimeError) as error:
        raise _broken(error) from None
    if all(hasattr(openai, name) for name in _NEEDED):
        return openai
    raise AtelierError(f"The Python package 'openai' is there in version {_version(openai)}; a language model needs "
                       f"{LEAST_VERSION} or newer.", _UPDATE)


def transport(openai: Any) -> Any:
    """The HTTP package under `openai`, whose errors can be raised while a body is read.

    `openai` moved from `httpx` to `httpx2` with version 3; its client is a subclass of the transport's in both.
    """
    client = next(base for base in openai.DefaultAsyncHttpxClient.__mro__ if base.__name__ == "AsyncClient")
    return importlib.import_module(client.__module__.partition(".")[0])


def _broken(error: Exception) -> AtelierError:
    return AtelierError(f"The Python package 'openai' (version {_version(None)}) cannot be imported: "
                        f"{str(error)[:200] or type(error).__name__}", _UPDATE)


def _version(openai: Any) -> str:
    try:
        return str(getattr(openai, "__version__", "") or importlib.metadata.version("openai"))
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
