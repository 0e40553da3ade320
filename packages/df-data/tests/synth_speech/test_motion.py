from __future__ import annotations

import numpy as np
import pytest

from df_data.synth.head.motion import Motion, make_motion
from df_data.synth.speech.sentences import Phone
from df_data.synth.speech.speech import speak_stream
from df_data.synth.speech.voice import make_voice

FRAMES = 25 * 120
LIMITS = {"yaw": 25, "pitch": 15, "roll": 10, "tx": 0.08, "ty": 0.08, "tz": 0.06, "brow": 1, "gaze_x": 1, "gaze_y": 1}


def phones_of(seed: int, seconds: float) -> tuple[Phone, ...]:
    return tuple(p for u in speak_stream(seed, "train", make_voice(seed), seconds) for p in u.phones)


@pytest.fixture(scope="module")
def motions() -> list[Motion]:
    return [make_motion(seed, phones_of(seed, FRAMES / 25), FRAMES) for seed in range(10)]


def test_ranges(motions: list[Motion]) -> None:
    for motion in motions:
        for name, limit in LIMITS.items():
            track = getattr(motion, name)
            assert track.dtype == np.float32 and track.shape == (FRAMES,)
            assert np.abs(track).max() <= np.float32(limit), name
        assert motion.light_intensity.min() > 0.8 and motion.light_intensity.max() < 1.2


def test_heads_move_but_do_not_tremble(motions: list[Motion]) -> None:
    assert np.median([np.ptp(m.yaw) for m in motions]) > 8
    for motion in motions:
        for name in ("yaw", "pitch", "roll"):
            speed = np.diff(getattr(motion, name)) * 25
            assert np.abs(speed).max() < 80, name
            assert np.sqrt(np.mean(np.diff(speed) ** 2)) < 0.9 * np.sqrt(np.mean(speed**2)) + 0.5, name


def test_blinks_are_as_frequent_and_as_long_as_peoples(motions: list[Motion]) -> None:
    counts, lengths = 0, []
    for motion in motions:
        assert motion.blink.min() >= 0 and motion.blink.max() <= 1
        edges = np.flatnonzero(np.diff(np.concatenate([[0], motion.blink > 0.5, [0]]).astype(int)))
        counts += len(edges) // 2
        lengths += list((edges[1::2] - edges[::2]) / 25)
    assert 12 <= counts / (len(motions) * FRAMES / 25 / 60) <= 22
    assert 0.08 <= np.mean(lengths) <= 0.2
    closed = np.concatenate([m.blink for m in motions])
    assert closed.mean() < 0.10


def test_lids_close_faster_than_they_open(motions: list[Motion]) -> None:
    steps = np.concatenate([np.diff(m.blink) for m in motions])
    assert (steps < -0.05).sum() > 1.2 * (steps > 0.05).sum()


def test_nods_and_brows_go_with_the_accents(motions: list[Motion]) -> None:
    nod, rest = [], []
    for seed, motion in enumerate(motions):
        still = make_motion(seed, (), FRAMES)
        added = motion.pitch - still.pitch
        at = np.zeros(FRAMES, dtype=bool)
        for phone in phones_of(seed, FRAMES / 25):
            frame = round((phone.start + phone.end) / 2 * 25)
            if phone.stress == 2 and phone.phoneme.kind == "vowel" and 0 <= frame < FRAMES:
                at[frame] = True
        nod.append(added[at].mean())
        rest.append(added[~at].mean())
        assert np.array_equal(motion.yaw, still.yaw)
    assert np.mean(nod) > 1.3 * np.mean(rest) > 0


def test_same_seed_same_motion_and_longer_begins_with_shorter() -> None:
    short, long = (make_motion(4, phones_of(4, n / 25), n) for n in (33, 129))
    for name in vars(short):
        assert np.array_equal(getattr(short, name), getattr(long, name)[:33]), name
    assert not np.array_equal(short.yaw, make_motion(5, phones_of(4, 33 / 25), 33).yaw)
