"""Names from users in tables that other programs open."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_cell(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula: such texts begin with an apostrophe."""
    if isinstance(value, str) and len(value) > 1 and value.startswith(_FORMULA):
        try:
            float(value)
        except ValueError:
            return f"'{value}"
    return value


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([csv_cell(v) for v in row] for row in rows)
    return buffer.getvalue()


def markdown_cell(value: Any) -> str:
    """A text that Markdown shows as it is, in one line of a table."""
    return re.sub(r"([\\`*\[\]<>|])", r"\\\1", " ".join(str(value).split()))
