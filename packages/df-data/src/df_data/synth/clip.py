"""One clip of the corpus: a person speaking, with audio, images and every truth, from two integers.

Legend: T pixel frames, S pixels a side, N = 640 T samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from df_data.synth.config import PEOPLE
from df_data.synth.head.face_state import FaceTracks
from df_data.synth.head.flame import flame_vectors
from df_data.synth.head.identity import Identity, identity_vector
from df_data.synth.head.motion import make_motion
from df_data.synth.head.render import geometry, render
from df_data.synth.head.structure import structure_vectors, truths
from df_data.synth.speech.articulation import CONTROL_RATE
from df_data.synth.speech.sentences import SPLITS, Split
from df_data.synth.speech.speech import Speech, make_speech
from df_data.synth.speech.voice import make_voice
from df_models.errors import UserError
from df_models.time import FPS, samples_for

IDENTITIES: dict[str, range] = {"train": range(PEOPLE // 2), "val": range(PEOPLE // 2, PEOPLE)}
"""Identity numbers of each split: nobody is in both, save in a corpus of one person (`SynthConfig.person`)."""


@dataclass(frozen=True)
class SynthClip:
    """A clip with its truths; pixel frame t is the face at time t/25 s, which is also sample 640 t.

    Attributes:
        frames: uint8 ``[T, S, S, 3]``.
        wave: float32 ``[640 T]``, 16 kHz mono.
        structure: float32 ``[T, 70]``, :data:`df_models.structure.LIVEPORTRAIT_70`.
        flame: float32 ``[T, 159]``, :data:`df_models.structure.FLAME_159`.
        keypoints: ``[T, 21, 3]`` in the camera frame; landmarks2d: ``[T, 21, 2]`` in pixels.
        mouth_boxes: float32 ``[T, 4]``, x0, y0, x1, y1 in pixels.
        truth: named measures, each float32 ``[T]`` (:func:`df_data.synth.head.structure.truths` and the articulators).
        identity_vector: float32 ``[D_id]``.
        phonemes: (symbol, start, end) in s; text: the sentences as phonemes.
        sentence_seed: seed of the first sentence heard (:func:`df_data.synth.speech.sentences.make_sentence`).
        tracks: the motion that was rendered.
    """

    frames: np.ndarray
    wave: np.ndarray
    structure: np.ndarray
    flame: np.ndarray
    keypoints: np.ndarray
    landmarks2d: np.ndarray
    mouth_boxes: np.ndarray
    truth: dict[str, np.ndarray]
    identity: int
    identity_vector: np.ndarray
    phonemes: list[tuple[str, float, float]]
    text: str
    sentence_seed: int
    split: Split
    tracks: FaceTracks


def make_clip(
    seed: int,
    identity: int,
    num_frames: int,
    size: int = 64,
    *,
    split: Split | None = None,
    in_both: bool = False,
) -> SynthClip:
    """Make a clip of continuing speech that begins at a random moment.

    Args:
        seed: what is said and how the head moves.
        identity: who speaks; must belong to the split (:data:`IDENTITIES`).
        num_frames: pixel frames, from one to minutes.
        size: pixels a side.
        split: the words of one split never occur in the other; by default the split the identity belongs to.
        in_both: the person may be of the other split (`SynthConfig.person`).

    Raises:
        UserError: the split is unknown, the identity is of the other split, or the length is not positive.
    """
    split = _split_of(identity, split, in_both)
    if num_frames < 1:
        raise UserError(f"a clip needs at least one frame, not {num_frames}")
    person = Identity.sample(identity)
    speech = make_speech(seed, split, make_voice(identity), samples_for(num_frames))
    tracks = face_tracks(seed, speech, num_frames)
    image = render(person, tracks, size)
    known = geometry(person, tracks)
    spoken = [u for u in speech.utterances if u.end > 0 and u.speech_start < num_frames / FPS]
    return SynthClip(
        frames=image.frames,
        wave=speech.wave,
        structure=structure_vectors(person, tracks, known),
        flame=flame_vectors(person, tracks),
        keypoints=image.keypoints,
        landmarks2d=image.landmarks2d,
        mouth_boxes=image.mouth_boxes,
        truth=truths(person, tracks, known),
        identity=identity,
        identity_vector=identity_vector(person),
        phonemes=[(p.symbol, p.start, p.end) for p in speech.phones],
        text=" | ".join(" ".join(word.text for word in u.sentence.words) for u in spoken),
        sentence_seed=(spoken or speech.utterances)[0].seed,
        split=split,
        tracks=tracks,
    )


def _split_of(identity: int, split: Split | None, in_both: bool) -> Split:
    """The split asked for, checked against the one that an identity belongs to, which is also the default."""
    if split is not None and split not in SPLITS:
        raise UserError(f"split must be one of {', '.join(SPLITS)}, not {split!r}")
    own: Split | None = next((s for s in SPLITS if identity in IDENTITIES[s]), None)
    if own is None:
        raise UserError(f"identity {identity} is of no split; {_ranges()}")
    if split not in (None, own) and not in_both:
        raise UserError(f"identity {identity} is not of the split {split!r}; {_ranges()}")
    return split or own


def _ranges() -> str:
    return ", ".join(f"{s} has {r.start} to {r.stop - 1}" for s, r in IDENTITIES.items())


def face_tracks(seed: int, speech: Speech, num_frames: int) -> FaceTracks:
    """The face's state at each pixel frame: the mouth of the speech, everything else from :func:`make_motion`."""
    mouth = speech.mouth.every(CONTROL_RATE // FPS)
    motion = make_motion(seed, tuple(p for u in speech.utterances for p in u.phones), num_frames)
    return FaceTracks(jaw=mouth.jaw, lip_width=mouth.width, lip_round=mouth.rounding, **vars(motion))
