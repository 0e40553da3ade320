"""Videos that are whole and yet strange: in size, in time, in their streams, in their audio."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from broken_cases import ACCEPTED, FAILED, Case, case
from broken_render import FRAMES, Recipe, render, restamp, speech, with_packets

HOURS_8 = 8 * 3600.0
STEADY = np.arange(FRAMES) / 25
MKV = Recipe(format="matroska", audio="pcm_s16le", rate=16_000)
SMALL = ("no_face", "face_too_small", FAILED)


def odd() -> list[Case]:
    return [*_sizes(), *_times(), *_patched(), *_streams(), *_audio()]


def _of(kind: str, name: str, recipe: Recipe, *ends: str) -> Case:
    return case(kind, name, partial(_render, recipe), *ends)


def _render(recipe: Recipe, path: Path) -> None:
    render(path, recipe)


def with_(recipe: Recipe, **changes: object) -> Recipe:
    return Recipe(**{**recipe.__dict__, **changes})


def _sizes() -> Iterator[Case]:
    for width, height in ((1, 1), (2, 2), (2, 64), (64, 2), (3, 3), (16, 16)):
        recipe = with_(MKV, video="ffv1", pix_fmt="bgr0", size=(width, height))
        yield _of("tiny image", f"size-{width}x{height}.mkv", recipe, *SMALL, "shot_cut")
    for width, height in ((2, 4000), (4000, 2)):
        recipe = with_(MKV, video="ffv1", pix_fmt="bgr0", size=(width, height))
        yield _of("strip of an image", f"size-{width}x{height}.mkv", recipe, *SMALL)
    yield _of("odd size", "size-95x97.mkv", with_(MKV, video="ffv1", pix_fmt="yuv444p", size=(95, 97)), ACCEPTED)
    for pix_fmt in ("gray", "gray16le", "yuva420p", "rgb48le", "yuv420p10le", "gbrp10le", "yuv410p"):
        yield _of("rare pixels", f"pixels-{pix_fmt}.mkv", with_(MKV, video="ffv1", pix_fmt=pix_fmt), ACCEPTED)


def _times() -> Iterator[Case]:
    later = speech(FRAMES / 25, 16_000)
    kind, mov = "time stamps", with_(MKV, format="mov")
    yield _of(kind, "time-begin-8h.mkv", with_(MKV, times=STEADY + HOURS_8, audio_start=HOURS_8), ACCEPTED)
    yield _of(kind, "time-begin-8h.mov", with_(mov, times=STEADY + HOURS_8, audio_start=HOURS_8), ACCEPTED)
    yield _of(kind, "time-image-8h.mkv", with_(MKV, times=STEADY + HOURS_8), "broken_time_stamps")
    yield _of(kind, "time-audio-8h.mkv", with_(MKV, tone=later, audio_start=HOURS_8), "broken_time_stamps")
    jump = np.concatenate([STEADY, HOURS_8 + STEADY])
    yield _of(kind, "time-gap-8h.mkv", with_(MKV, times=jump, tone=later), ACCEPTED)
    apart = np.array([0.0, HOURS_8])
    yield _of(kind, "time-two-images-8h.mkv", with_(MKV, times=apart, tone=later), "too_short")
    yield _of(kind, "time-one-image.mkv", with_(MKV, times=[0.0], tone=later), "too_short")
    yield _of(kind, "time-one-image.mov", with_(mov, times=[0.0], tone=later), "too_short")
    yield _of(kind, "time-0.1-fps.mkv", with_(MKV, times=np.arange(20) * 10.0, tone=later), "too_short")
    fast = with_(MKV, times=np.arange(2200) / 1000, size=(32, 32), tone=later)
    yield _of(kind, "time-1000-fps.mkv", fast, ACCEPTED)
    ticks = [int(40 * i) for i in range(FRAMES)]
    slow = "frame_rate_too_low"  # of the images whose stamp rises
    stamps = {
        "missing": ([t - 5000 for t in ticks], "broken_time_stamps"),
        "half-missing": ([t if i % 2 else t - 5000 for i, t in enumerate(ticks)], slow),
        "equal": ([0] * FRAMES, "too_short"),
        "backwards": (ticks[::-1], "too_short"),
        "shuffled": ([ticks[i ^ 1] for i in range(FRAMES)], slow),
        "far-back": ([t if i % 3 else max(0, t - 900) for i, t in enumerate(ticks)], slow),
        "twice": ([ticks[i // 2 * 2] for i in range(FRAMES)], slow),
        "huge": ([2**53 + t for t in ticks], "broken_time_stamps"),
        "largest": ([2**62 + t for t in ticks], "broken_time_stamps"),
    }
    for name, (values, end) in stamps.items():
        yield case(kind, f"time-{name}.mkv", partial(_restamped, values, "matroska"), end)
    for form in ("nut", "mov"):
        yield case(kind, f"time-backwards.{form}", partial(_restamped, ticks[::-1], form), "too_short", FAILED)


def _restamped(values: list[int], format: str, path: Path) -> None:
    source = path.with_name(path.name + ".source")
    render(source, MKV)
    restamp(source, path, format, values)
    source.unlink()


def _patched() -> Iterator[Case]:
    """An index whose numbers are absurd: times, sizes, counts."""
    ends = (FAILED, "too_short", "broken_time_stamps", "no_video_track", "no_sound_track", "sound_too_short",
            "broken_sound", "picture_too_large", "damaged_pictures", "silent_sound_track", ACCEPTED)  # fmt: skip
    places: dict[str, tuple[bytes, int, str]] = {
        "timescale": (b"mdhd", 16, ">I"),
        "duration": (b"mvhd", 20, ">I"),
        "frame-time": (b"stts", 16, ">I"),
        "frame-count": (b"stts", 12, ">I"),
        "table": (b"stsz", 12, ">I"),
        "sample-size": (b"stsz", 8, ">I"),
        "chunk-offset": (b"stco", 12, ">I"),
        "chunk-samples": (b"stsc", 16, ">I"),
        "edit": (b"elst", 16, ">I"),
        "width": (b"avc1", 28, ">H"),
        "audio-rate": (b"mp4a", 26, ">H"),
        "channels": (b"mp4a", 20, ">H"),
    }
    for name, (box, offset, form) in places.items():
        most = 2 ** (8 * struct.calcsize(form)) - 1
        for value in (0, 1, most):
            write = partial(_patch, box, offset, struct.pack(form, value))
            yield case("absurd index", f"index-{name}-{value}.mp4", write, *ends)


def _patch(box: bytes, offset: int, value: bytes, path: Path) -> None:
    render(path, Recipe())
    data, at = bytearray(path.read_bytes()), 0
    assert box in data
    while (at := data.find(box, at + 1)) >= 0:
        data[at + offset - 4 + 4 : at + offset + len(value)] = value
    path.write_bytes(data)


def _streams() -> Iterator[Case]:
    yield _of("no audio stream", "mute.mp4", Recipe(audio=None), "no_sound_track")
    yield _of("no audio stream", "mute.webm", Recipe(format="webm", video="libvpx-vp9", audio=None), "no_sound_track")
    yield _of("no audio stream", "bare.h264", Recipe(format="h264", audio=None), "no_sound_track")
    yield _of("no images", "empty-video.mkv", with_(MKV, times=[], tone=speech(2.4, 16_000)), FAILED, "no_video_track")
    yield _of("no samples", "empty-audio.mkv", with_(MKV, tone=np.zeros(0, np.float32)), "no_sound_track")
    yield _of("little audio", "short-audio.mkv", with_(MKV, tone=speech(0.4, 16_000)), "sound_too_short")
    large = Recipe(format="mpegts", size=(160, 128), times=tuple(STEADY + 2.4), audio_start=2.4)
    yield case("size changes", "resized.ts", partial(_chained, Recipe(format="mpegts"), large), ACCEPTED)
    back = Recipe(format="mpegts", size=(160, 128))
    yield case("time begins anew", "again.ts", partial(_chained, Recipe(format="mpegts"), back), ACCEPTED, FAILED)
    slow = Recipe(format="mpegts", audio="mp2", rate=32_000, size=(96, 96), times=tuple(STEADY + 2.4), audio_start=2.4)
    first = Recipe(format="mpegts", audio="mp2", rate=48_000)
    # the audio is read across the change of rate, so the jump of the images at the join is seen too
    yield case("rate changes", "rates.ts", partial(_chained, first, slow), "shot_cut")


def _chained(first: Recipe, second: Recipe, path: Path) -> None:
    render(path, first)
    data = path.read_bytes()
    render(path, second)
    path.write_bytes(data + path.read_bytes())


def _audio() -> Iterator[Case]:
    kind, tone = "corrupt audio", speech(2.4, 16_000)
    for codec, form in (("aac", "matroska"), ("mp2", "matroska"), ("libopus", "matroska"), ("flac", "matroska")):
        for fill in (b"\0", b"\x5a\xa5\x13"):
            recipe = Recipe(format=form, audio=codec)
            ends = (FAILED, "no_sound_track", "silent_sound_track", "sound_too_short", "broken_sound", ACCEPTED)
            yield case(kind, f"audio-{codec}-{fill.hex()}.mkv", partial(_filled, recipe, fill), *ends)
    values: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
        "nan": (lambda wave: np.where(wave > 0.3, np.nan, wave), "broken_sound"),
        "infinite": (lambda wave: np.where(wave > 0.3, np.inf, wave), "broken_sound"),
        "deafening": (lambda wave: wave * 1e20, "broken_sound"),
        "silent": (lambda wave: wave * 0, "silent_sound_track"),
        "tiny": (lambda wave: wave * 1e-30, "silent_sound_track"),
    }
    for name, (change, end) in values.items():
        recipe = with_(MKV, audio="pcm_f32le", tone=change(tone).astype(np.float32))
        yield _of(kind, f"audio-{name}.mkv", recipe, end)
    for rate in (8, 1000, 3999):
        yield _of(
            "rate of audio", f"audio-{rate}-hz.mkv", with_(MKV, rate=rate, tone=speech(2.4, rate)), "broken_sound"
        )
    for rate in (4000, 8000, 192_000, 768_000):
        yield _of("rate of audio", f"audio-{rate}-hz.mkv", with_(MKV, rate=rate, tone=speech(2.4, rate)), ACCEPTED)
    yield case("rate of audio", "audio-2-ghz.mkv", _fastest, "broken_sound", FAILED)
    for layout, end in {"22.2": "broken_sound", "hexadecagonal": "broken_sound", "7.1": ACCEPTED}.items():
        yield _of("many channels", f"audio-{layout}.mkv", with_(MKV, layout=layout), end)


def _filled(recipe: Recipe, fill: bytes, path: Path) -> None:
    source = path.with_name(path.name + ".source")
    render(source, recipe)
    with_packets(source, path, recipe.format, "audio", fill)
    source.unlink()


def _fastest(path: Path) -> None:
    """A header that says 2 GHz: a segment of that many samples would not fit into any memory."""
    render(path, MKV)
    data = path.read_bytes()
    old = b"\xb5\x88" + struct.pack(">d", 16_000)
    assert data.count(old) == 1
    path.write_bytes(data.replace(old, b"\xb5\x88" + struct.pack(">d", 2e9)))
