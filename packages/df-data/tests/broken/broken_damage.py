"""Intact videos that were damaged on the way: cut off, flipped bits, holes, pieces in the wrong order, wrong names."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping

from broken_cases import ACCEPTED, FAILED, Case, case, put

DAMAGED = (
    ACCEPTED, FAILED, "no_video_track", "no_sound_track", "too_short", "broken_time_stamps", "broken_sound",
    "damaged_pictures", "frame_rate_too_low", "picture_too_large", "silent_sound_track", "sound_too_short",
    "shot_cut", "no_face",
)  # fmt: skip
"""How a video may end of which nobody knows what is left: refused for something, failed, or audio enough."""
REGIONS = {"head": (0.0, 0.03), "body": (0.1, 0.9), "tail": (0.97, 1.0)}


def damaged(tone: Mapping[str, bytes], seeds: int = 2) -> list[Case]:
    """Damage each of the intact videos, given by the end of their names."""
    return [*broken_off(tone), *flipped(tone, seeds), *_holes(tone), *_renamed(tone)]


def broken_off(tone: Mapping[str, bytes]) -> Iterator[Case]:
    for suffix, data in tone.items():
        for tenth in range(1, 10):
            ends = _ends_of_a_cut(suffix, tenth)
            yield case("truncated", f"cut-{tenth}.{suffix}", put(data[: len(data) * tenth // 10]), *ends)


def _ends_of_a_cut(suffix: str, tenth: int) -> tuple[str, ...]:
    if suffix in ("mp4", "mov"):
        return (FAILED,)  # the index is at the end
    short = (FAILED, "too_short", "sound_too_short", "damaged_pictures")  # the last image is cut too
    return (*short, "no_sound_track", "no_video_track") if tenth <= 6 else (*short, ACCEPTED)


def flip(data: bytes, seed: str, region: tuple[float, float], flips: int) -> bytes:
    """Flip some bits of a region, given in shares of the length."""
    rng, changed = random.Random(seed), bytearray(data)
    low, high = (int(share * (len(data) - 1)) for share in region)
    for _ in range(flips):
        changed[rng.randint(low, high)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def flipped(tone: Mapping[str, bytes], seeds: int) -> Iterator[Case]:
    for suffix, data in tone.items():
        for region, bounds in REGIONS.items():
            for seed in range(seeds):
                name = f"flip-{region}-{seed}.{suffix}"
                yield case("bits flipped", name, put(flip(data, name, bounds, 1 + 8 * seed)), *DAMAGED)


def _holes(tone: Mapping[str, bytes]) -> Iterator[Case]:
    for suffix, data in tone.items():
        size, half = len(data), len(data) // 2
        for part, start in {"begin": 0, "middle": 2 * size // 5, "end": 4 * size // 5}.items():
            hole = data[:start] + bytes(size // 5) + data[start + size // 5 :]
            ends = (FAILED,) if part == "begin" and suffix.endswith(("mp4", "mov", "mkv", "webm", "avi")) else DAMAGED
            yield case("zeros inside", f"zeros-{part}.{suffix}", put(hole), *ends)
        yield case("halves swapped", f"swapped.{suffix}", put(data[half:] + data[:half]), *DAMAGED)
        yield case("twice in a row", f"twice.{suffix}", put(data + data), *DAMAGED)
    noise = random.Random(0).randbytes(len(tone["fast.mp4"]))
    start = tone["fast.mp4"].index(b"mdat") + 4
    yield case("as if encrypted", "secret.mp4", put(tone["fast.mp4"][:start] + noise[start:]), *DAMAGED)


def _renamed(tone: Mapping[str, bytes]) -> Iterator[Case]:
    names = {
        "mp4": "is-mp4.mpg", "mpg": "is-mpg.mp4", "webm": "is-webm.avi", "mkv": "is-mkv.mp4", "mov": "is-mov.jpg",
        "avi": "is-avi", "ts": "is-ts.txt", "fast.mp4": "is-mp4.png",
    }  # fmt: skip
    for suffix, name in names.items():
        yield case("wrong extension", name, put(tone[suffix] + b"\0"), ACCEPTED)  # not a copy of the intact one
