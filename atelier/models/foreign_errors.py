"""diffusers' and transformers' refusal of a configuration, told as an error that a person can act on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import AtelierError


@contextmanager
def explained(what: str, do: str) -> Iterator[None]:
    """Turn an error of the libraries that build a model into an `AtelierError`.

    For building alone, which takes no memory and reads no file: whatever fails there fails for the configuration.

    Args:
        what: What is being built from, as the beginning of a sentence: a file, or "The configuration of …".
        do: What a person can do; ends the message.

    Raises:
        AtelierError: the libraries refused; the message holds their first line.
    """
    from huggingface_hub import errors

    # transformers 5 checks the fields of configurations, transformers 4 does not.
    strict = getattr(errors, "StrictDataclassError", ValueError)
    try:
        yield
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, AssertionError, RuntimeError,
            strict) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)[:300].rstrip(".")
        raise AtelierError(f"{what} cannot be used: {reason}.", do) from error
