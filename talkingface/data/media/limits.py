"""Limits for files from unknown sources, so that a small file cannot fill memory or run for hours.

They come from the section ``media`` of the configuration and apply to this process and those that
it starts.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from talkingface.errors import DataError

if TYPE_CHECKING:
    from talkingface.config.schema import MediaSection

_DEFAULTS = {"max_hours": 6.0, "max_megapixels": 100.0, "max_array_gb": 4.0}
_VARIABLE = "TALKINGFACE_{}"
SAMPLE_RATES = (1000, 768_000)  # Hz; others are damaged headers


def set_limits(section: MediaSection) -> None:
    """Use the limits of a configuration in this process and its children."""
    for key in _DEFAULTS:
        os.environ[_VARIABLE.format(key.upper())] = str(getattr(section, key))


def limit(key: str) -> float:
    """A limit by its key, e.g. ``max_hours``."""
    return float(os.environ.get(_VARIABLE.format(key.upper()), _DEFAULTS[key]))


def require_pixels(width: int, height: int, path: object) -> None:
    """Raise a DataError for a picture or video with too many pixels, before it is decoded."""
    if width * height > limit("max_megapixels") * 1e6:
        raise DataError(
            f"{path} has {width}x{height} pixels, more than media.max_megapixels = "
            f"{limit('max_megapixels'):g} allows. Make it smaller, or raise the limit."
        )


def require_hours(seconds: float, path: object) -> None:
    """Raise a DataError for a recording that is too long."""
    if seconds > 3600 * limit("max_hours"):
        raise DataError(
            f"{path} lasts {seconds / 3600:.1f} h by its time stamps, more than media.max_hours = "
            f"{limit('max_hours'):g} allows. Cut it, or raise the limit."
        )


def require_rate(rate: int, path: object) -> None:
    """Raise a DataError for a sample rate that no recording has."""
    if not SAMPLE_RATES[0] <= rate <= SAMPLE_RATES[1]:
        raise DataError(
            f"The header of {path} says {rate} samples per second; it is damaged (1,000 to 768,000 "
            "are read). Export the audio again."
        )
