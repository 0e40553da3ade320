"""Lets the tests import `listed_videos` and `bad_server` from their own folder, and gives each a web server."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from bad_server import Site, serving
from listed_videos import tone, write_video


@pytest.fixture
def site() -> Iterator[Site]:
    """A web server on 127.0.0.1."""
    with serving() as found:
        yield found


@pytest.fixture(scope="session")
def video_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Six seconds at 25 fps with audio, as the bytes of an mp4."""
    path = tmp_path_factory.mktemp("video") / "v.mp4"
    return write_video(path, np.arange(150) / 25, wave=tone(6.0)).read_bytes()
