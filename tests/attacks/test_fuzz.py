"""Damaged files of all kinds (fuzz.py) end with an error of the toolkit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).with_name("fuzz.py")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system with fork")
@pytest.mark.parametrize("count", [100, pytest.param(2000, marks=pytest.mark.slow)])
def test_damaged_files_end_with_a_message(count, request):
    pytest.importorskip("av")
    command = [sys.executable, str(FUZZ), str(count), f"--seed={count}"]
    if count > 1000:
        cases = request.getfixturevalue("shared") / "field_cases"
        command += [f"--more={cases}"] if cases.is_dir() else []
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout)["failures"] == []
