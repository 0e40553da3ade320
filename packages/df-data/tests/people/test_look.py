"""One look at a video: which frames are decoded, and when they say one person."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from df_data.people import look
from df_data.people.look import few_frames, look_at
from df_data.stages.rejection import Rejected
from df_models.encoders.face.yunet import Face
from df_models.errors import UserError


def record(path: Path, count: int, fps: int = 25, key_every: int = 12, size: tuple[int, int] = (64, 48)) -> Path:
    """A video whose brightness grows evenly with time."""
    options = {"live": "1"} if path.name == "live.mkv" else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.options = {"g": str(key_every), "preset": "ultrafast"}
        for index in range(count):
            image = np.full((size[1], size[0], 3), 20 + 200 * index // max(1, count - 1), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def moments(path: Path) -> list[float]:
    """When the frames that a look takes are shown, as shares of the video, read off their brightness."""
    return [(float(frame.mean()) - 20) / 200 for frame in few_frames(path)]


def test_five_frames_spread_over_a_short_and_a_long_video(tmp_path: Path) -> None:
    wanted = [0.1, 0.3, 0.5, 0.7, 0.9]
    assert moments(record(tmp_path / "short.mp4", 75, key_every=1000)) == pytest.approx(wanted, abs=0.03)
    assert moments(record(tmp_path / "long.mp4", 900)) == pytest.approx(wanted, abs=0.03)


def test_a_long_video_is_not_decoded_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = record(tmp_path / "long.mp4", 1500)
    decoded = []
    islice = look.itertools.islice

    def counting(frames: Any, most: int) -> Any:
        for frame in islice(frames, most):
            decoded.append(frame.pts)
            yield frame

    monkeypatch.setattr(look.itertools, "islice", counting)
    assert len(list(few_frames(path))) == 5
    assert len(decoded) <= 5 * 13  # from a key frame, twelve frames apart, to the moment


@pytest.mark.parametrize(
    ("name", "count", "key_every"),
    [
        ("untold.h264", 225, 12),
        ("live.mkv", 225, 12),
        ("few_keys.ts", 500, 250),
        ("few_keys.mp4", 300, 250),
        ("few_keys.mkv", 500, 250),
        ("one_key.mp4", 900, 100_000),
        ("small.h264", 5, 5),
    ],
)
def test_five_frames_where_lengths_or_key_frames_are_missing(
    tmp_path: Path, name: str, count: int, key_every: int
) -> None:
    found = moments(record(tmp_path / name, count, key_every=key_every))
    assert found == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9], abs=0.11 if count == 5 else 0.05)


def test_what_is_decoded_through_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = record(tmp_path / "untold.h264", 225)
    monkeypatch.setattr(look, "MOST_FRAMES_THROUGH", 45)  # the first fifth
    assert moments(path) == pytest.approx([0.02, 0.06, 0.1, 0.14, 0.18], abs=0.02)


def test_a_video_that_ends_in_damage_is_looked_at_as_far_as_it_goes(tmp_path: Path) -> None:
    path = record(tmp_path / "untold.h264", 225)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert len(few_frames(path)) == 5


def test_a_single_image_and_large_images(tmp_path: Path) -> None:
    assert len(list(few_frames(record(tmp_path / "one.mp4", 1)))) == 1
    (frame, *_) = few_frames(record(tmp_path / "wide.mp4", 2, size=(1600, 90)))
    assert frame.shape == (72, 1280, 3)


def test_files_that_cannot_be_looked_at(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such file: gone\.mp4"):
        list(few_frames(tmp_path / "gone.mp4"))
    (tmp_path / "text.mp4").write_text("no video " * 100)
    with pytest.raises(UserError):
        list(few_frames(tmp_path / "text.mp4"))
    with av.open(str(tmp_path / "audio.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        audio = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        audio.sample_rate = 16_000
        container.mux(stream.encode(audio))
        container.mux(stream.encode(None))
    with pytest.raises(Rejected, match="no_video_track"):
        list(few_frames(tmp_path / "audio.mp4"))


class Told:
    """Detector and network in one: frame number n shows the faces ``shows[n]``, each (size, angle of its vector)."""

    def __init__(self, *shows: list[tuple[float, float]]) -> None:
        self.frames = [np.full((8, 8, 3), index, np.uint8) for index in range(len(shows))]
        self._shows = shows

    def detect(self, image_HWC: np.ndarray) -> list[Face]:
        shown = self._shows[image_HWC[0, 0, 0]]
        return [Face(np.array([0.0, 0.0, s, s]), np.full((5, 2), a), 0.9) for s, a in shown]

    def embed(self, face: float) -> np.ndarray:
        return np.array([np.cos(np.radians(face)), np.sin(np.radians(face))])


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(look, "upright_face", lambda frame, points: points[0, 0])

    def call(*shows: list[tuple[float, float]]) -> look.Look:
        told = Told(*shows)
        return look_at(told.frames, told, told, 0.35)  # type: ignore[arg-type]

    return call


def test_the_vector_is_the_mean_direction_of_the_largest_faces(looked: Any) -> None:
    found = looked([(100, 0), (20, 90)], [(100, 40)], [], [(100, 20)])
    assert (found.faces, found.agreement) == (3, pytest.approx(np.cos(np.radians(40))))
    assert found.vector == pytest.approx([np.cos(np.radians(20)), np.sin(np.radians(20))])
    assert looked([(100, 30)]).agreement is None


def test_a_face_seen_once_is_an_error_of_the_detector(looked: Any) -> None:
    assert looked([(9, 0)], [(9, 5)], [(9, 90)], [(9, 2)]).faces == 3


@pytest.mark.parametrize(
    ("shows", "reason"),
    [
        ([[], []], "no_face"),
        ([[(9, 0), (5, 0)], [(9, 0), (5, 0)]], "more_than_one_face"),
        ([[(9, 0), (5, 0)], [(9, 0)]], "more_than_one_face"),
        ([[(9, 0)], [(9, 0)], [(9, 90)], [(9, 90)]], "different_people"),
        ([[(9, 0)], [(9, 90)]], "different_people"),
    ],
)
def test_what_says_nobody(looked: Any, shows: list[list[tuple[float, float]]], reason: str) -> None:
    with pytest.raises(Rejected, match=reason):
        looked(*shows)
