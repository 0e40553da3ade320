"""Clips as the judges see them, read once and kept: landmarks, audio, the crop and small whole images.

Reading faces costs seconds a clip, a judgement of what was read microseconds: with the readings kept, thousands of
windows, pairings and edits cost nothing. A kept file belongs to its source's bytes; another one is read anew.

Shape legend: T frames, N = 640 T samples, S side of the crop.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from benchmarks.stages.talks import FACES, SIDE, Models
from df_data.stages.decode import DecodedClip, iter_segments
from df_data.stages.faces import detect_faces, track_face
from df_data.stages.gaps import fill_gaps
from df_data.stages.landmarks import Landmarks
from df_data.stages.readings import Readings, readings_of
from df_data.stages.rejection import Rejected
from df_data.synth.clip import make_clip
from df_models.crop import CropRule, crop_resize
from df_models.time import samples_for

VERSION = "1"
"""Raised when what is kept changes."""
WHOLE_SIDE = 320
"""Longer side of the whole images that are kept, for the judges of shots."""


@dataclass(frozen=True, eq=False)
class Seen:
    """One stretch of a clip of one person, in sync, with nothing wrong.

    Attributes:
        person: who; two of one name are one person.
        file: which file it is of: one file, one offset.
        corpus: ``rendered``, ``GRID`` or ``talking``.
        kept: the file that holds all of it.
        wave: float32 [N].
        landmarks: of the crop, gaps filled.
    """

    person: str
    file: str
    corpus: str
    kept: Path
    wave: np.ndarray
    landmarks: Landmarks

    @property
    def whole(self) -> np.ndarray:
        """Small whole images, uint8 ``[T, H, W, 3]``."""
        return np.load(self.kept)["whole"]

    @property
    def frames(self) -> np.ndarray:
        """The crop, uint8 ``[T, S, S, 3]``."""
        return np.load(self.kept)["frames"]

    @cached_property
    def readings(self) -> Readings:
        """The measures of the landmarks."""
        return readings_of(self.landmarks)


def read_stretch(source: DecodedClip, models: Models) -> dict[str, np.ndarray]:
    """Take one stretch through face detection, crop and landmarks as a build does."""
    num, height, width = source.frames.shape[:3]
    track = track_face(
        detect_faces(source.frames, models.detector, FACES.detect_every), (num, height, width), FACES, CropRule()
    )
    inside = slice(track.start, track.stop)
    frames = crop_resize(source.frames[inside], track.crop, SIDE)
    found = fill_gaps(models.reader.landmarks(frames), 2)
    step = max(1, -(-max(height, width) // WHOLE_SIDE))
    return {
        "whole": source.frames[inside, ::step, ::step],
        "frames": frames,
        "wave": source.wave[samples_for(track.start) : samples_for(track.stop)],
        "points": found.points.astype(np.float32),
        "rotation": found.rotation.astype(np.float32),
        "depth": found.depth,
        "blendshapes": found.blendshapes.astype(np.float32),
        "names": np.array(found.blendshape_names),
    }


def seen_files(
    paths: Sequence[Path], corpus: str, who: Callable[[Path], str], models: Models, cache: Path
) -> Iterator[Seen]:
    """Yield the stretches of real files; one that shows no single face is passed over."""
    for path in paths:
        sha = hashlib.sha256(path.read_bytes()).hexdigest()
        yield from _kept(cache, f"{path.stem}-{sha[:12]}", lambda p=path: _stretches(p, models), who(path), corpus)


def seen_rendered(count: int, frames: int, models: Models, cache: Path) -> Iterator[Seen]:
    """Yield rendered people 0, 1, ..., ``frames`` long."""
    for number in range(count):
        name = f"rendered-{number}"
        made = lambda n=number: _rendered(n, frames, models)  # noqa: E731
        yield from _kept(cache, f"{name}-{frames}", made, name, "rendered")


def _stretches(path: Path, models: Models) -> Iterator[dict[str, np.ndarray]]:
    for decoded in iter_segments(path):
        try:
            yield read_stretch(decoded, models)
        except Rejected:
            continue


def _rendered(number: int, frames: int, models: Models) -> Iterator[dict[str, np.ndarray]]:
    clip = make_clip(number, number, frames, SIDE)
    yield read_stretch(DecodedClip(clip.frames, clip.wave, 0.0, 25.0, 0.0, 1.0, 0), models)


def _kept(
    cache: Path, name: str, make: Callable[[], Iterator[dict[str, np.ndarray]]], person: str, corpus: str
) -> Iterator[Seen]:
    folder = cache / f"{name}-v{VERSION}"
    if not (folder / "done").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        for index, arrays in enumerate(make()):
            np.savez(folder / f"{index:03d}.npz", **arrays)  # pyright: ignore[reportArgumentType]  # arrays by name
        (folder / "done").touch()
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as held:
            points = held["points"].astype(np.float64)
            landmarks = Landmarks(
                points,
                held["rotation"].astype(np.float64),
                held["depth"],
                held["blendshapes"].astype(np.float64),
                np.ones(len(points), dtype=bool),
                tuple(str(shape) for shape in held["names"]),
            )
            yield Seen(person, name, corpus, path, held["wave"], landmarks)
