"""Natural motion of the head, eyes and brows at 25 fps, in step with the speech.

Legend: T pixel frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from df_data.synth.seeding import rng_for
from df_data.synth.speech.sentences import Phone
from df_models.blinks import BLINKS_PER_MINUTE, REFRACTORY_S, STRETCH, eyelid_closure
from df_models.time import FPS


@dataclass(frozen=True)
class Motion:
    """Everything of a face's movement but the mouth, each float32 ``[T]``, in the units of ``FaceTracks``."""

    yaw: np.ndarray
    pitch: np.ndarray
    roll: np.ndarray
    tx: np.ndarray
    ty: np.ndarray
    tz: np.ndarray
    blink: np.ndarray
    brow: np.ndarray
    gaze_x: np.ndarray
    gaze_y: np.ndarray
    light_azimuth: np.ndarray
    light_elevation: np.ndarray
    light_intensity: np.ndarray


def make_motion(seed: int, phones: tuple[Phone, ...], num_frames: int) -> Motion:
    """Motion of ``num_frames`` frames; nods and raised brows follow the accents in ``phones`` (times in s).

    The phones should reach a second beyond the last frame, for the head begins to nod before the accent.
    """
    accents = [(p.start + p.end) / 2 for p in phones if p.stress == 2 and p.phoneme.kind == "vowel"]
    stresses = [(p.start + p.end) / 2 for p in phones if p.stress and p.phoneme.kind == "vowel"]
    nod = 2.6 * _bumps(accents, 0.16, num_frames, _part(seed, "nod"), low=0.3)
    lift = 0.7 * _bumps(stresses, 0.20, num_frames, _part(seed, "lift"), low=0.0)
    gaze_x, gaze_y = _gaze(_part(seed, "gaze"), num_frames)

    def wander(name: str, cutoff: float, deviation: float, low: float, high: float) -> np.ndarray:
        rng = _part(seed, name)
        return rng.uniform(low, high) + _drift(rng, num_frames, cutoff, deviation)

    def within(x: np.ndarray, limit: float) -> np.ndarray:
        return np.clip(x, -limit, limit).astype(np.float32)

    return Motion(
        yaw=within(wander("yaw", 0.35, 6.0, -10, 10) + 1.5 * gaze_x, 25),
        pitch=within(wander("pitch", 0.4, 3.0, -4, 4) + nod, 15),
        roll=within(wander("roll", 0.3, 2.6, -3, 3), 10),
        tx=within(wander("tx", 0.25, 0.016, -0.03, 0.03), 0.08),
        ty=within(wander("ty", 0.25, 0.012, -0.02, 0.02), 0.08),
        tz=within(wander("tz", 0.2, 0.012, -0.02, 0.02), 0.06),
        blink=_blinks(_part(seed, "blink"), num_frames),
        brow=within(wander("brow", 0.3, 0.15, 0, 0) + lift, 1),
        gaze_x=gaze_x,
        gaze_y=gaze_y,
        light_azimuth=wander("light azimuth", 0.1, 4.0, -55, 55).astype(np.float32),
        light_elevation=wander("light elevation", 0.1, 2.0, 15, 50).astype(np.float32),
        light_intensity=wander("light intensity", 0.1, 0.015, 0.9, 1.1).astype(np.float32),
    )


def _part(seed: int, name: str) -> np.random.Generator:
    """A generator per movement, so that a longer clip of the same seed begins with the shorter one."""
    return rng_for("motion", name, seed)


def _drift(rng: np.random.Generator, num_frames: int, cutoff: float, deviation: float) -> np.ndarray:
    """Smooth random movement ``[T]``: a sum of sinusoids below ``cutoff`` Hz of given standard deviation in time."""
    frequencies = cutoff * np.sqrt(rng.uniform(0.02, 1.0, 8))
    weights = rng.standard_normal(8) * deviation / 2.0
    phases = rng.uniform(0, 2 * np.pi, 8)
    t = np.arange(num_frames)[:, None] / FPS
    return (weights * np.sin(2 * np.pi * frequencies * t + phases)).sum(axis=1)


def _bumps(times: list[float], width: float, num_frames: int, rng: np.random.Generator, low: float) -> np.ndarray:
    """A sum of Gaussian bumps at ``times`` (s) of random height between ``low`` and 1, cut at 4 ``width``, ``[T]``."""
    t = np.arange(num_frames) / FPS
    total = np.zeros(num_frames)
    for time in times:
        height = rng.uniform(low, 1.0)
        near = np.abs(t - time) < 4 * width
        total[near] += height * np.exp(-0.5 * ((t[near] - time) / width) ** 2)
    return total


def _blinks(rng: np.random.Generator, num_frames: int) -> np.ndarray:
    """Eyelids ``[T]``: a Poisson process with a refractory time; quick to close, slower to open."""
    t = np.arange(num_frames) / FPS
    lids = np.zeros(num_frames)
    clock = -1.0
    while clock < num_frames / FPS + 1.0:
        clock += REFRACTORY_S + rng.exponential(60.0 / BLINKS_PER_MINUTE - REFRACTORY_S)
        lids = np.maximum(lids, eyelid_closure(t - clock, rng.uniform(*STRETCH)))
    return lids.astype(np.float32)


def _gaze(rng: np.random.Generator, num_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Fixations of 0.4-2 s joined by saccades of one frame or two; mostly at the viewer."""
    targets = np.zeros((num_frames, 2))
    frame = -int(rng.integers(0, 25))
    while frame < num_frames:
        length = int(rng.uniform(0.4, 2.0) * FPS)
        away = rng.random() < 0.4
        target = rng.normal(0, (0.45, 0.25), 2) if away else rng.normal(0, 0.06, 2)
        targets[max(frame, 0) : max(frame + length, 0)] = np.clip(target, -1, 1)
        frame += length
    smoothed = targets.copy()
    smoothed[1:] = 0.6 * targets[1:] + 0.4 * targets[:-1]
    return smoothed[:, 0].astype(np.float32), smoothed[:, 1].astype(np.float32)
