"""``benchmark.html``: all results of a benchmark in one file that needs no server and no network.

The page is ``page.html`` with the results embedded as JSON, from which its script builds the page.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from talkingface.evaluator.report import clean
from talkingface.utils.paths import write_text

_PLACE = "@@DATA@@"  # in page.html, inside a script element of type application/json
# "<" could end the element ("</script>"), and some parsers end a line at U+2028 and U+2029. All of
# these characters are in JSON strings only, where an escape sequence is equivalent.
_ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def write_page(path: Path, data: Mapping[str, Any]) -> None:
    """Write the result page atomically. Equal data give equal bytes.

    Args:
        path: target, ``.html``. Missing folders are created.
        data: result of :func:`~talkingface.comparison.report.report`, which the script of
            ``page.html`` reads. nan and infinite values are shown as undefined.

    Raises:
        EnvironmentProblem: disk full, read-only folder.
    """
    template = resources.files("talkingface.comparison").joinpath("page.html").read_text("utf-8")
    before, _, after = template.partition(_PLACE)
    write_text(path, before + _embedded(data) + after)


def _embedded(data: Mapping[str, Any]) -> str:
    """JSON that cannot end its script element."""
    text = json.dumps(clean(data), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    text = text.translate(_ESCAPES)
    # File names that are not UTF-8 contain lone surrogates, which UTF-8 cannot encode; Python's
    # backslash escape for them is also the JSON escape.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
