"""Outputs of the original networks, from the folder ``golden`` below ``TALKINGFACE_SHARED``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

_REPO = Path(__file__).resolve().parents[1]
FOLDER = Path(os.environ.get("TALKINGFACE_SHARED", _REPO.parent / "shared")) / "golden"


@pytest.fixture(scope="session")
def golden():
    """The loader module that lies beside the outputs; skips where the folder is absent."""
    if not (FOLDER / "golden.py").is_file():
        pytest.skip(f"reference outputs not found in {FOLDER} (set TALKINGFACE_SHARED)")
    writes_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # read-only folder
    sys.path.insert(0, str(FOLDER))
    try:
        import golden as module
    finally:
        sys.path.remove(str(FOLDER))
        sys.dont_write_bytecode = writes_bytecode
    return module
