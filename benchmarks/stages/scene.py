"""A scene: a rendered head that speaks, known at every instant, and images that carry their own number.

The clock of a scene begins at its first sample of audio. A video of it begins ``LEAD_S`` later, so that an audio track
may begin before the images and still hold the scene's own audio.

Shape legend: T frames, S side in pixels, N samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from df_data.synth.clip import face_tracks
from df_data.synth.head.face_state import FaceTracks
from df_data.synth.head.identity import Identity
from df_data.synth.head.render import render
from df_data.synth.head.structure import truths
from df_data.synth.speech.speech import make_speech
from df_data.synth.speech.voice import make_voice
from df_models.crop import CropBox
from df_models.time import FPS, SAMPLE_RATE, samples_for

LEAD_S = 0.4
TAIL_S = 0.6
SIDE = 256
BITS = 10
BLOCK = (14, 26)
"""Width and height of a bit's block in pixels of an image of 256."""
TOP = 30
"""Where the column of blocks begins: five blocks at the left edge, five at the right, beside the head."""


@dataclass(frozen=True)
class Scene:
    """Somebody speaking for ``seconds`` of video.

    Attributes:
        person, seed: who, and what is said.
        tracks: the face at 25 Hz from the scene's beginning; between two of its points it moves evenly.
        wave: float32 [N], 16 kHz, from the scene's beginning to ``TAIL_S`` after the video's end.
    """

    person: int
    seed: int
    seconds: float
    tracks: FaceTracks
    wave: np.ndarray

    @classmethod
    def make(cls, seed: int, person: int, seconds: float) -> Scene:
        """Return the scene of these numbers (:mod:`df_data.synth`)."""
        frames = round((LEAD_S + seconds + TAIL_S) * FPS)
        speech = make_speech(seed, "train", make_voice(person), samples_for(frames))
        return cls(person, seed, seconds, face_tracks(seed, speech, frames), speech.wave)

    def tracks_at(self, times_T: np.ndarray) -> FaceTracks:
        """Return the face at these seconds of the video."""
        at = (np.asarray(times_T) + LEAD_S) * FPS
        known = self.tracks.as_array()
        columns = [np.interp(at, np.arange(len(known)), column) for column in known.T]
        return FaceTracks(*columns)

    def truth(self, times_T: np.ndarray) -> dict[str, np.ndarray]:
        """Return the exact measures of the face at these seconds of the video (:mod:`df_data.synth.head.structure`)."""
        return truths(Identity.sample(self.person), self.tracks_at(times_T))

    def images(self, times_T: np.ndarray, size: int = SIDE) -> np.ndarray:
        """Return uint8 ``[T, S, S, 3]``: the face at these seconds, each image stamped with its place in the row."""
        drawn = render(Identity.sample(self.person), self.tracks_at(times_T), size).frames
        return np.stack([stamped(frame, number) for number, frame in enumerate(drawn)])

    def audio(self, start: float, num_samples: int) -> np.ndarray:
        """Return the audio from a second of the video on, float32 ``[num_samples]``."""
        first = round((LEAD_S + start) * SAMPLE_RATE)
        return self.wave[first : first + num_samples]


def blocks(size: int) -> list[tuple[slice, slice]]:
    """Return rows and columns of each bit's block in an image of ``size``, the least bit first."""
    scale = size / SIDE
    width, height = BLOCK
    found = []
    for bit in range(BITS):
        left = 0 if bit < BITS // 2 else SIDE - width
        top = TOP + (bit % (BITS // 2)) * height
        rows, columns = (top, top + height), (left, left + width)
        found.append((slice(*(round(v * scale) for v in rows)), slice(*(round(v * scale) for v in columns))))
    return found


def stamped(image_SSC: np.ndarray, number: int) -> np.ndarray:
    """Return the image with ``number`` (below 1024) in blocks of white (1) and black (0) at its edges."""
    out = image_SSC.copy()
    for bit, where in enumerate(blocks(len(out))):
        out[where] = 235 if number >> bit & 1 else 20
    return out


def stamp_of(frame_HWC: np.ndarray, crop: CropBox | None = None, size: int | None = None) -> int:
    """Read the number of an image, or of a crop of it.

    Args:
        crop: where the crop lies in the source image; None: the frame is the whole image.
        size: side of the source image; needed with ``crop``.
    """
    side = len(frame_HWC)
    box = CropBox(0.0, 0.0, float(side)) if crop is None else crop
    scale, number = side / box.side, 0
    for bit, (rows, columns) in enumerate(blocks(side if size is None else size)):
        y = (np.array([rows.start + 2.0, rows.stop - 2.0]) - box.y) * scale
        x = (np.array([columns.start + 2.0, columns.stop - 2.0]) - box.x) * scale
        y0, y1, x0, x1 = (round(float(v)) for v in (*y, *x))
        if frame_HWC[max(y0, 0) : max(y1, y0 + 1), max(x0, 0) : max(x1, x0 + 1)].mean() > 128:
            number |= 1 << bit
    return number
