"""HDR and wide gamuts against the formulas the other way, and files of them through the decoder."""

from __future__ import annotations

import io
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from PIL import Image

from df_data.build.rejects import file_image
from df_data.people.look import few_frames
from df_data.stages.colour import (
    BRIGHTEST,
    BT2020,
    HLG,
    IPT_C2,
    P3_D65,
    PQ,
    REFERENCE_WHITE,
    UNSPECIFIED,
    Colours,
    colours_of,
    convert,
    gamut_matrix,
    hlg_light,
    knee,
    pq_signal,
    standard_light,
    to_bt709,
)
from df_data.stages.decode import iter_segments
from df_data.stages.rejection import Rejected

GREYS = np.array([16, 64, 128, 176, 180])


def hlg_signal(light: np.ndarray) -> np.ndarray:
    """Grey light of a display of 1000 cd/m2 as HLG's signal: the other way of :func:`hlg_light` (BT.2100, table 5)."""
    scene = (light / BRIGHTEST) ** (1 / 1.2)
    a, b, c = 0.17883277, 1 - 4 * 0.17883277, 0.5 - 0.17883277 * np.log(4 * 0.17883277)
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), a * np.log(np.maximum(12 * scene - b, 1e-9)) + c)


SIGNALS: dict[int, Callable[[np.ndarray], np.ndarray]] = {PQ: pq_signal, HLG: hlg_signal}


@pytest.mark.parametrize("transfer", SIGNALS)
def test_what_was_put_into_hdr_comes_back(transfer: int) -> None:
    """By BT.2408: white at 203 cd/m2. 240 had stayed 144 (PQ) and 185 (HLG), a white that looked grey."""
    levels = np.repeat(np.append(GREYS, [240, 255])[:, None], 3, axis=1) / 255
    signal = SIGNALS[transfer](standard_light(levels))
    assert np.rint(255 * signal[-2, 0]) == {PQ: 144, HLG: 185}[transfer]
    found = 255 * convert(signal, Colours(transfer, BT2020))
    np.testing.assert_allclose(found[:-2], np.repeat(GREYS[:, None], 3, axis=1), atol=0.1)
    np.testing.assert_allclose(found[-2:, 0], [223.6, 230.3], atol=0.1)
    image = np.rint(255 * signal)[None].astype(np.uint16) * 257
    off = np.abs(to_bt709(image, Colours(transfer)) - 255 * convert(image / 65535, Colours(transfer))).max(axis=(0, 2))
    assert off[:-2].max() < 1 and off.max() < 3.5, "between the points of the table"


def test_known_values_of_the_curves() -> None:
    assert hlg_light(np.full(3, 0.75))[0] == pytest.approx(203, abs=0.5), "BT.2408, table 1: 75 % of HLG"
    assert pq_signal(np.array(203.0)) == pytest.approx(0.58, abs=0.005), "BT.2408, table 1: 58 % of PQ"
    assert pq_signal(np.array(10000.0)) == pytest.approx(1)
    lights = np.linspace(0, BRIGHTEST, 500)
    bent = knee(lights)
    assert (np.diff(bent) > 0).all() and bent[-1] == pytest.approx(REFERENCE_WHITE) and knee(np.array(5e3)) == bent[-1]
    np.testing.assert_allclose(bent[lights < 85], lights[lights < 85], rtol=1e-6, atol=1e-9)


def test_gamuts() -> None:
    published = [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]
    np.testing.assert_allclose(gamut_matrix("BT.2020"), published, atol=1e-4)  # Recommendation ITU-R BT.2087, M2
    for colours in (Colours(1, BT2020), Colours(1, P3_D65)):
        grey = np.full((2, 2, 3), 128 * 257, np.uint16)
        assert np.abs(to_bt709(grey, colours).astype(int) - 128).max() <= 1
        red = to_bt709(np.full((1, 1, 3), [200 * 257, 60 * 257, 60 * 257], np.uint16), colours)[0, 0]
        assert red[0] > 205 and red[1] < 60, "a red of a wide gamut is more saturated in a narrow one"
    for standard in (Colours(), Colours(1, 1), Colours(6, 6), Colours(13, 1)):
        assert standard.standard
    with pytest.raises(Rejected, match="Dolby Vision alone") as told:
        colours_of(SimpleNamespace(colorspace=IPT_C2))
    assert told.value.reason == "colours_not_read"


def ten_bits(luma: int, size: int = 64) -> av.VideoFrame:
    frame = av.VideoFrame(size, size, "yuv420p10le")
    for plane, value in zip(frame.planes, (luma, 512, 512), strict=True):
        plane.update(np.full(plane.buffer_size // 2, value, np.uint16).tobytes())
    return frame


def grey_file(path: Path, luma: int, transfer: int, primaries: int = BT2020, tag: str | None = None) -> Path:
    """Write four grey 10 bit images with these marks."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx265", rate=25, options={"x265-params": "log-level=none"})
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p10le"
        context = stream.codec_context
        if tag is not None:
            context.codec_tag = tag
        context.color_trc, context.color_primaries, context.colorspace = transfer, primaries, primaries
        for index in range(4):
            frame = ten_bits(luma)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("transfer", SIGNALS)
def test_a_file_of_hdr_is_decoded_as_bt709(tmp_path: Path, transfer: int) -> None:
    light = standard_light(np.array(176 / 255))
    path = grey_file(tmp_path / "hdr.mp4", round(64 + 876 * float(SIGNALS[transfer](light))), transfer)
    (clip,) = iter_segments(path, min_seconds=0.1, needs_audio=False)
    assert np.abs(clip.frames.astype(int) - 176).max() <= 3
    image = file_image(path)
    assert image is not None, "of a rejected one"
    assert np.abs(np.asarray(Image.open(io.BytesIO(image))).astype(int) - 176).max() <= 4
    assert all(np.abs(frame.astype(int) - 176).max() <= 3 for frame in few_frames(path)), "and for its person"


def test_dolby_visions_own_colours_are_refused_where_the_file_says_nothing_else(tmp_path: Path) -> None:
    own = grey_file(tmp_path / "5.mp4", 500, UNSPECIFIED, UNSPECIFIED, "dvh1")
    with pytest.raises(Rejected) as told:
        list(iter_segments(own, min_seconds=0.1, needs_audio=False))
    assert told.value.reason == "colours_not_read" and "profile 5" in str(told.value)
    assert file_image(own) is not None, "it is shown all the same"
    for others in (
        grey_file(tmp_path / "8.mp4", 500, PQ, BT2020, "dvh1"),
        grey_file(tmp_path / "none.mp4", 500, UNSPECIFIED, UNSPECIFIED, "hvc1"),
    ):
        assert list(iter_segments(others, min_seconds=0.1, needs_audio=False))
