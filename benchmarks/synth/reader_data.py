"""Random renders with their truths, to train and to test the reader on.

Articulators are drawn independently of each other and of the pose, so that the mouth can only be read from the mouth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from df_data.synth.head.face_state import random_tracks
from df_data.synth.head.identity import Identity, hashed_generator, identity_vector
from df_data.synth.head.render import geometry, render
from df_data.synth.head.structure import truths
from df_data.synth.reader.model import INPUT_SIZE, READINGS

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
