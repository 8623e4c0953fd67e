"""The answers that the pages of the API show."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from support.paths import SAMPLES

LEDGER = sorted(path.stem for path in SAMPLES.glob("ledger_*.json"))

# The one sample that is no JSON on the page: quotation marks of print, and a placeholder for the value.
BROKEN_SAMPLE = "ledger_customer_registration"


def sample(name: str) -> bytes:
    """The page's text; the broken sample with the evident repair."""
    text = (SAMPLES / f"{name}.json").read_text("utf-8")
    if name == BROKEN_SAMPLE:
        text = text.replace("“", '"').replace("{RefId1}", '"RefId1"').replace("{RefId2}", '"RefId2"')
    return text.encode()


def page_json(name: str) -> Any:
    """The sample as the standard library reads it, decimals with their text."""
    return json.loads(sample(name), parse_float=Decimal)
