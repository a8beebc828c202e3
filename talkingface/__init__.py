"""talkingface: train, run and compare audio-driven talking heads.

The public Python interface; importing it loads neither torch nor any model:

* :func:`run`, :func:`infer`, :func:`prepare`, :func:`benchmark`
* :func:`create_model`, :func:`load_weights`
* :func:`list_models`, :func:`list_datasets`, :func:`list_metrics`, :func:`create_metric`
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "benchmark",
    "create_metric",
    "create_model",
    "infer",
    "list_datasets",
    "list_metrics",
    "list_models",
    "load_weights",
    "prepare",
    "run",
]

if TYPE_CHECKING:
    from talkingface.api import (
        benchmark,
        create_metric,
        create_model,
        infer,
        list_datasets,
        list_metrics,
        list_models,
        load_weights,
        prepare,
        run,
    )


def __getattr__(name: str):
    if name in __all__:
        from talkingface import api

        return getattr(api, name)
    raise AttributeError(f"module 'talkingface' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


class _MovedModules:
    """Last import finder: raises an error with the new name of a module that has moved."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> None:
        if name.startswith("talkingface."):
            from talkingface.utils.moved import present_name

            if now := present_name(name):
                raise ModuleNotFoundError(f"{name} is now {now}", name=name)


sys.meta_path.append(_MovedModules)
