"""What PEFT's configurations leave out means what it means there."""

from __future__ import annotations

import peft
import pytest

from atelier.lora.peft_config import PeftConfig


@pytest.mark.parametrize("kind", [peft.LoraConfig, peft.LoHaConfig, peft.LoKrConfig])
def test_an_absent_field_is_pefts_own_default(kind: type[peft.PeftConfig]) -> None:
    fields = kind().to_dict()
    stated = PeftConfig.of({**fields, "peft_type": fields["peft_type"].value}, "a file")
    found = PeftConfig.of({"peft_type": fields["peft_type"].value}, "a file")
    assert (found.alpha, found.rank, found.rslora) == (stated.alpha, stated.rank, stated.rslora)
