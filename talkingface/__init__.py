"""talkingface: train, run and compare audio-driven talking heads.

The public Python interface; importing it loads neither torch nor any model:

* :func:`run`, :func:`create_model`, :func:`load_weights`
* :func:`list_models`, :func:`list_datasets`, :func:`list_metrics`, :func:`create_metric`
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = [
    "create_metric",
    "create_model",
    "list_datasets",
    "list_metrics",
    "list_models",
    "load_weights",
    "run",
]

if TYPE_CHECKING:
    from talkingface.api import (
        create_metric,
        create_model,
        list_datasets,
        list_metrics,
        list_models,
        load_weights,
        run,
    )


def __getattr__(name: str):
    if name in __all__:
        from talkingface import api

        return getattr(api, name)
    raise AttributeError(f"module 'talkingface' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
