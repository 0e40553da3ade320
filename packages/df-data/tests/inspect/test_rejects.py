"""Images of rejected inputs: of what can be seen, of nothing else, and never outside their folder."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from df_data.build.rejects import HEIGHT, file_image, image_path, read_image, store_image, strip_of
from df_models.errors import UserError
from df_models.media import write_image, write_video, write_wav


def opened(image: bytes | None) -> np.ndarray:
    assert image is not None
    return np.asarray(Image.open(io.BytesIO(image)))


def test_a_strip_shows_beginning_middle_and_end(tmp_path: Path) -> None:
    frames = np.zeros((100, 48, 64, 3), dtype=np.uint8)
    frames[:34, ..., 0] = frames[34:67, ..., 1] = frames[67:, ..., 2] = 220
    write_video(tmp_path / "v.mp4", frames)
    strip = opened(file_image(tmp_path / "v.mp4"))
    assert strip.shape == (HEIGHT, 3 * 160, 3)
    thirds = [strip[:, 160 * i + 20 : 160 * i + 140].mean(axis=(0, 1)).argmax() for i in range(3)]
    assert thirds == [0, 1, 2]


@pytest.mark.parametrize(("turn", "mirrored"), [(90, False), (180, True), (270, False)])
def test_a_strip_is_upright_as_a_player_shows_it(tmp_path: Path, turn: int, mirrored: bool) -> None:
    image = np.zeros((96, 64, 3), np.uint8)
    image[:48, :32] = 230  # bright at the top left
    stored = np.ascontiguousarray(np.rot90(image[:, ::-1] if mirrored else image, -turn // 90))
    with av.open(str(tmp_path / "turned.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width = stored.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.set_display_rotation(turn, hflip=mirrored)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(stored, format="rgb24")))
        container.mux(stream.encode(None))
    strip = opened(file_image(tmp_path / "turned.mp4"))
    assert strip.shape == (HEIGHT, 80, 3)
    assert strip[5:50, 5:30].min() > 200 and strip[70:].max() < 30 and strip[:, 50:].max() < 30


def test_a_still_image_gives_one_frame(tmp_path: Path) -> None:
    write_image(tmp_path / "p.jpg", np.full((66, 200, 3), 128, dtype=np.uint8))
    assert opened(file_image(tmp_path / "p.jpg")).shape == (HEIGHT, 364, 3)


def test_what_shows_nothing_gives_none(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.mp4").write_bytes(b"")
    write_wav(tmp_path / "audio.wav", np.zeros(16_000))
    write_video(tmp_path / "whole.mp4", np.zeros((50, 32, 32, 3), dtype=np.uint8))
    whole = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    for name in ("text.mp4", "empty.mp4", "audio.wav", "cut.mp4", "missing.mp4"):
        assert file_image(tmp_path / name) is None, name


@pytest.mark.parametrize("shape", [(1, 1), (2000, 4), (4, 2000)])
def test_odd_shapes_are_squeezed(shape: tuple[int, int]) -> None:
    strip = opened(strip_of([np.zeros((*shape, 3), dtype=np.uint8)]))
    assert strip.shape[0] == HEIGHT and HEIGHT / 4 <= strip.shape[1] <= HEIGHT * 4


def test_no_name_leaves_the_folder(tmp_path: Path) -> None:
    for name in ("../../evil", "/etc/passwd", "a/b\0c", "x" * 5000, "é"):
        store_image(tmp_path, name, b"jpeg")
        assert image_path(tmp_path, name).parent == tmp_path / "rejects"
        assert read_image(tmp_path, name) == b"jpeg"
    assert len(list((tmp_path / "rejects").iterdir())) == 5
    store_image(tmp_path, "nothing", None)
    assert read_image(tmp_path, "nothing") is None
    with pytest.raises(UserError, match="no frames"):
        strip_of([])
