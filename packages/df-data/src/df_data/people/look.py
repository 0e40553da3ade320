"""One look at a video: a few of its frames, the face in them, and one vector of who it is.

The five points that turn the face upright are the detector's own. MediaPipe's, which the build uses on its crops, cost
18 ms more a frame and part people no better: least cosine of two clips of one GRID speaker 0.90 with YuNet's points and
0.91 with MediaPipe's, greatest between speakers 0.35 and 0.31 (39 clips, five frames each).

Shape legend: H, W pixels, D width of a vector, F frames.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from df_data.build.rejects import MICROSECONDS
from df_data.people.groups import Groups
from df_data.stages.aspect import square_size
from df_data.stages.colour import rgb_of, shown_colours
from df_data.stages.decode import video_stream
from df_data.stages.faces import FaceDetector
from df_data.stages.identity import FRAMES, FaceIdentity, upright_face
from df_data.stages.rejection import Rejected
from df_data.stages.turn import turned, upright_turn
from df_models.containers import open_media
from df_models.errors import UserError

LONGEST_SIDE = 1280
"""Larger images are shrunk to it: a face needs 112 pixels."""
WHOLE_S = 10.0
"""A video up to this length is decoded from its beginning; in a longer one each frame is sought."""
MOST_FRAMES = 300
"""Frames decoded at most after a seek, to come from the key frame to the moment wanted (x264 puts them 250 apart)."""
MOST_FRAMES_WHOLE = 600
"""Frames decoded at most of a video that is decoded from its beginning: ten seconds at 60 a second."""
MOST_FRAMES_THROUGH = 18_000
"""Frames decoded at most of a video in which nothing can be sought: ten minutes at 30 a second."""
HELD = 20
"""Images held at most on the way through it."""
SAME_FACE = 0.45
"""Two frames of one video show one person above it. Faces of single frames are less alike than means of five: measured
on ten videos, five frames each, least within a video 0.71, greatest between people 0.38."""


@dataclass(frozen=True)
class Look:
    """Who a video shows.

    Attributes:
        vector: float32 [D], the mean direction of its faces, of length 1.
        faces: how many faces that is the mean of, each of another frame.
        agreement: least cosine of two of them; None for one.
    """

    vector: np.ndarray
    faces: int
    agreement: float | None


def few_frames(path: Path) -> list[np.ndarray]:
    """Return up to five upright frames spread over a video, uint8 RGB ``[H, W, 3]``, decoding little else.

    A video whose length is not told (raw H.264, a stream that was recorded live), or whose frames cannot be sought (a
    transport stream with few key frames), is decoded through, at most its first :data:`MOST_FRAMES_THROUGH` frames.

    Raises:
        Rejected: ``no_video_track``, ``picture_too_large``.
        UserError: no such file, or one that cannot be decoded.
    """
    import av

    if not path.is_file():
        raise UserError(f"no such file: {path.name}")
    try:
        found = _sought(path)
        return found if len(found) == FRAMES else _passed_through(path, found)
    except UserError:
        raise
    except (av.FFmpegError, OSError, ValueError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise UserError(f"{path.name} cannot be decoded ({reason})") from error


def _sought(path: Path) -> list[np.ndarray]:
    """Return the frames at five moments, each once; none if the length of the video is not told."""
    with open_media(path) as container:
        stream = video_stream(container)
        frames = _frames(container, stream) if container.duration else ()
        return [_pixels(frame, stream.sample_aspect_ratio) for frame in frames]


def _passed_through(path: Path, found: list[np.ndarray]) -> list[np.ndarray]:
    """Return five frames at equal distances of all that can be decoded, or those ``found`` so far if they are more.

    Every n-th image is held, and n doubles when :data:`HELD` are: their number is not known before.
    """
    import av

    held, every, count = [], 1, 0
    with open_media(path) as container:
        stream = video_stream(container)
        try:
            for frame in itertools.islice(container.decode(stream), MOST_FRAMES_THROUGH):
                if count % every == 0:
                    held.append(_pixels(frame, stream.sample_aspect_ratio))
                count += 1
                if len(held) > HELD:
                    held, every = held[::2], 2 * every
        except av.FFmpegError:
            if not held and not found:
                raise
    places = sorted({int((index + 0.5) * len(held) / FRAMES) for index in range(FRAMES)}) if held else []
    return [held[place] for place in places] if len(places) > len(found) else found


def _frames(container: Any, stream: Any) -> Iterator[Any]:
    seconds = float(container.duration) / MICROSECONDS
    begin = float(container.start_time or 0) / MICROSECONDS
    moments = [begin + seconds * (index + 0.5) / FRAMES for index in range(FRAMES)]
    if seconds <= WHOLE_S:
        yield from _passing(itertools.islice(container.decode(stream), MOST_FRAMES_WHOLE), moments)
        return
    given = set()
    for moment in moments:
        container.seek(int(moment * MICROSECONDS))
        for frame in _passing(itertools.islice(container.decode(stream), MOST_FRAMES), [moment]):
            if frame.pts not in given:
                yield frame
            given.add(frame.pts)


def _passing(frames: Iterator[Any], moments: list[float]) -> Iterator[Any]:
    """Yield the first frame at or after each moment; if the frames end before one, the last of them."""
    waiting, frame, given = iter(moments), None, None
    moment = next(waiting, None)
    for frame in frames:
        if moment is None:
            return
        if (frame.time or 0.0) >= moment:
            yield frame
            given, moment = frame, next(waiting, None)
    if moment is not None and frame is not None and frame is not given:
        yield frame


def _pixels(frame: Any, aspect: Fraction | None) -> np.ndarray:
    square = square_size(frame.width, frame.height, aspect)
    scale = min(1.0, LONGEST_SIDE / max(square))
    width, height = (max(2, round(side * scale)) for side in square)
    rgb_HWC = rgb_of(frame, width, height, shown_colours(frame))
    return np.ascontiguousarray(turned(rgb_HWC, upright_turn(frame)))


def look_at(frames: Iterable[np.ndarray], detector: FaceDetector, network: FaceIdentity, other_face: float) -> Look:
    """Return who a few frames of one video show.

    A frame with a second face counts for nobody. Where frames show different people, those who are seen once are errors
    of the detector, unless all are.

    Args:
        other_face: a second face counts when it has this share of the largest one's size.

    Raises:
        Rejected: ``no_face``, ``more_than_one_face`` (in half of the frames with a face or more), ``different_people``.
    """
    vectors: list[np.ndarray] = []
    looked = crowded = 0
    for frame_HWC in frames:
        looked += 1
        faces = sorted(detector.detect(frame_HWC), key=lambda face: -face.size)
        if len(faces) > 1 and faces[1].size >= other_face * faces[0].size:
            crowded += 1
        elif faces:
            vectors.append(network.embed(upright_face(frame_HWC, faces[0].points)))
    if crowded and crowded >= len(vectors):
        raise Rejected("more_than_one_face", f"several faces in {crowded} of {looked} frames", {})
    if not vectors:
        raise Rejected("no_face", f"no face in {looked} frames", {})
    return _one_person(np.stack(vectors))


def _one_person(vectors_FD: np.ndarray) -> Look:
    cosines_FF = vectors_FD @ vectors_FD.T
    groups = Groups(len(vectors_FD))
    for a, b in zip(*np.nonzero(cosines_FF > SAME_FACE)):
        groups.join(int(a), int(b))
    labels, counts = np.unique(groups.labels(), return_counts=True)
    if len(labels) > 1 and (counts.max() == 1 or (counts > 1).sum() > 1):
        shares = " + ".join(map(str, counts))
        raise Rejected("different_people", f"the faces of {shares} frames are not of one person", {})
    kept = np.flatnonzero(groups.labels() == labels[counts.argmax()])
    mean_D = vectors_FD[kept].mean(axis=0)
    agreement = float(cosines_FF[np.ix_(kept, kept)].min()) if len(kept) > 1 else None
    return Look((mean_D / np.linalg.norm(mean_D)).astype(np.float32), len(kept), agreement)
