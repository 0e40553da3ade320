"""Talking people as the later stages see them: rendered heads, whose every state is known, and GRID's real ones.

Shape legend: T frames, S = 256 side of the crop, N = 640 T samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from df_data.build.config import ModelPaths
from df_data.stages.decode import decode_clip
from df_data.stages.faces import FaceDetector, FaceFilter, detect_faces, track_face
from df_data.stages.gaps import fill_gaps
from df_data.stages.landmarker import MediaPipeReader
from df_data.stages.landmarks import Landmarks
from df_data.stages.readings import Readings, readings_of
from df_data.synth.clip import SynthClip, make_clip
from df_models.crop import CropRule, crop_resize
from df_models.encoders.face.face_detectors import load_face_detector
from df_models.time import samples_for

FRAMES = 75
SIDE = 256
FACES = FaceFilter(min_face=64, min_inside=0.6)
"""The faces here have 110 (GRID) and 210 pixels (rendered), and rendered heads fill their image to its edge."""


@dataclass(frozen=True)
class Models:
    """The stages' networks."""

    detector: FaceDetector
    reader: MediaPipeReader

    @classmethod
    def load(cls, paths: ModelPaths) -> Models:
        """Load them; errors as theirs."""
        return cls(
            load_face_detector(paths.face_detector),
            MediaPipeReader(paths.face_landmarker.path),
        )


@dataclass(frozen=True)
class Talk:
    """A clip of one person, in sync, with nothing wrong.

    Attributes:
        name: of the person.
        source: uint8 [T, H, W, 3], the whole image.
        face_size: median size of the face in it, pixels.
        frames: uint8 [T, S, S, 3], the crop.
        wave: float32 [N].
        readings: of the crop, gaps filled; landmarks likewise.
        known: the clip's exact truths, of rendered ones only.
    """

    name: str
    source: np.ndarray
    face_size: float
    frames: np.ndarray
    wave: np.ndarray
    landmarks: Landmarks
    readings: Readings
    known: SynthClip | None = None


def read_talk(name: str, source: np.ndarray, wave: np.ndarray, models: Models, known: SynthClip | None = None) -> Talk:
    """Take images through face detection, crop and landmarks as a build does."""
    num, height, width = source.shape[:3]
    faces = detect_faces(source, models.detector, FACES.detect_every)
    track = track_face(faces, (num, height, width), FACES, CropRule())
    inside = slice(track.start, track.stop)
    frames = crop_resize(source[inside], track.crop, SIDE)
    landmarks = fill_gaps(models.reader.landmarks(frames), 2)
    audio = wave[samples_for(track.start) : samples_for(track.stop)]
    return Talk(
        name, source[inside], track.scores["face_size"], frames, audio, landmarks, readings_of(landmarks), known
    )


def rendered_talks(count: int, models: Models, frames: int = FRAMES) -> list[Talk]:
    """Return clips of people 0, 1, ..., each with another seed."""
    clips = (make_clip(number, number, frames, SIDE) for number in range(count))
    return [read_talk(f"rendered-{clip.identity}", clip.frames, clip.wave, models, clip) for clip in clips]


def grid_talks(folder: Path, count: int, models: Models) -> list[Talk]:
    """Return GRID's clips: of all other speakers there are, then of speaker 1, evenly chosen."""
    others, one = (sorted((folder / name).glob("*.mpg")) for name in ("others", "s1"))
    rest = max(0, count - len(others))
    paths = [*others[:count], *(one[round(i * (len(one) - 1) / max(1, rest - 1))] for i in range(rest))]
    talks = []
    for path in paths:
        decoded = decode_clip(path)
        person = path.stem if path in others else "s1"
        talks.append(read_talk(f"grid-{person}", decoded.frames, decoded.wave, models))
    return talks
