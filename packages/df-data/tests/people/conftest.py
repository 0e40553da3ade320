"""Real clips and models, skipped with a reason where they are missing; and this folder on workers' path."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


def _folder(variable: str, fallback: str) -> Path:
    folder = Path(os.environ.get(variable) or fallback).resolve()
    if not folder.is_dir():
        pytest.skip(f"no real test data: set {variable} (no folder {folder})")
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    return _folder("DF_TEST_DATA", "../shared/data")


@pytest.fixture(scope="session")
def real_weights() -> Path:
    return _folder("DF_TEST_WEIGHTS", "../shared/weights")
