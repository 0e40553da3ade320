"""Random renders with their truths, to train and to test the reader on.

Articulators are drawn independently of each other and of the pose, so that the mouth can only be read from the mouth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from df_data.synth.face_state import FaceTracks
from df_data.synth.identity import Identity, hashed_generator, identity_vector
from df_data.synth.reader_model import INPUT_SIZE, READINGS
from df_data.synth.render import geometry, render
from df_data.synth.structure import truths

TRAIN_IDENTITIES = 10_000_000
"""First identity that the reader is trained on: far from those that corpora use."""


@dataclass(frozen=True)
class ReaderSet:
    """``images`` uint8 ``[N, 64, 64, 3]``, ``readings`` float32 ``[N, 6]``, ``identity`` float32 ``[N, D_id]``,
    ``person`` int64 ``[N]``."""

    images: np.ndarray
    readings: np.ndarray
    identity: np.ndarray
    person: np.ndarray


def random_tracks(rng: np.random.Generator, num_frames: int) -> FaceTracks:
    """Independent random states, a little beyond the natural ranges."""

    def uniform(low: float, high: float) -> np.ndarray:
        return rng.uniform(low, high, num_frames)

    def often(value: float, share: float, otherwise: np.ndarray) -> np.ndarray:
        return np.where(rng.random(num_frames) < share, value, otherwise)

    return FaceTracks(
        yaw=uniform(-30, 30),
        pitch=uniform(-18, 18),
        roll=uniform(-13, 13),
        tx=uniform(-0.1, 0.1),
        ty=uniform(-0.1, 0.1),
        tz=uniform(-0.08, 0.08),
        jaw=often(0.0, 0.15, uniform(0, 1) ** 1.2),
        lip_width=uniform(-1, 1),
        lip_round=often(0.0, 0.4, uniform(0, 1)),
        blink=often(0.0, 0.4, uniform(0, 1)),
        brow=uniform(-1, 1),
        gaze_x=uniform(-1, 1),
        gaze_y=uniform(-1, 1),
        light_azimuth=uniform(-75, 75),
        light_elevation=uniform(-5, 65),
        light_intensity=uniform(0.75, 1.25),
    )


def random_set(seed: int, people: int, states: int, first_identity: int, progress: bool = False) -> ReaderSet:
    """Render ``states`` random states of each of ``people`` identities from ``first_identity`` on."""
    total = people * states
    images = np.empty((total, INPUT_SIZE, INPUT_SIZE, 3), np.uint8)
    readings = np.empty((total, len(READINGS)), np.float32)
    vectors = []
    for number in tqdm(range(people), desc="render", disable=not progress):
        identity = Identity.sample(first_identity + number)
        tracks = random_tracks(hashed_generator("reader-states", seed, number), states)
        at = slice(number * states, (number + 1) * states)
        images[at] = render(identity, tracks, INPUT_SIZE).frames
        truth = truths(identity, tracks, geometry(identity, tracks))
        readings[at] = np.stack([truth[name] for name in READINGS], axis=1)
        vectors.append(identity_vector(identity))
    person = np.repeat(np.arange(people) + first_identity, states)
    return ReaderSet(images, readings, np.repeat(vectors, states, axis=0), person)
