"""Another system's videos: a folder with one for each clip, named as the clip, that nobody vouches for.

What is wrong with a video is told, one line for each clip, and never mended unless a setting asks for it
(:class:`df_eval.config.BaselineConfig`). A file whose tags turn its images is read as a player shows it, and told. A
wrong size or rate leaves the clip out of the system's row: such frames
cannot be compared with the clip's. A sound that is not in step with the clip's is only told: the frames are measured
against the clip as they are.

Shape suffixes: T pixel frames, H W height and width, N samples at 16 kHz.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from df_data.stages.decode import DecodedClip, iter_segments
from df_data.stages.rejection import Rejected
from df_eval.clips import EvalClip
from df_eval.config import BaselineConfig
from df_eval.rows.generation import Generated, Progress
from df_eval.rows.sound_offset import sound_offset
from df_eval.rows.systems import LeftOut
from df_models.errors import UserError
from df_models.structure import StructureLayout
from df_models.time import FPS, SAMPLES_PER_FRAME

MOST_BYTES = 2**30
"""Of one video."""
SPARE_S = 1.0
"""What is decoded of a video beyond the clip's own length, so that a late or longer one can be told."""
RATE_TOLERANCE = 0.01
"""Frames a second within which a rate is 25."""
SAME_SOUND = 0.3
"""Correlation at the best offset from which two sounds are one recording. Codecs leave it above 0.9."""


@dataclass(frozen=True)
class Told:
    """What was found of one clip's video, in words, and whether the clip is left out."""

    clip: str
    text: str
    left_out: bool

    def line(self, system: str) -> str:
        return f"{system}: {self.clip}: {self.text}; {'left out' if self.left_out else 'measured as it is'}"


class Looked(NamedTuple):
    """What the last video that was looked at holds: frames to measure, or None and why."""

    clip: str
    frames_THWC: np.ndarray | None
    why_not: str = ""


@dataclass
class FolderSystem:
    """Videos of a folder. Each is decoded when its clip's turn comes, looked through, measured and let go.

    Attributes:
        lengths: that are measured, rising.
        files: of the folder, by their names without the ending.
        videos: of clips that were looked at and can be measured, how many frames of each.
        told: what is wrong, clip by clip, of those that were looked at; ``mended``: what was changed because a setting
            asked for it.
        others: files of the folder that are named as no clip.
    """

    row: str
    config: BaselineConfig
    lengths: Sequence[int]
    files: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    videos: dict[str, int] = field(default_factory=dict)
    told: list[Told] = field(default_factory=list)
    mended: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    layout: StructureLayout | None = None
    _seen: set[str] = field(default_factory=set)
    _last: Looked | None = None

    def make(self, clips: Sequence[EvalClip], frames: int, progress: Progress) -> Iterator[Generated | LeftOut]:
        for clip in clips:
            made = self._first(clip, frames)
            progress(1)
            yield made

    def _first(self, clip: EvalClip, frames: int) -> Generated | LeftOut:
        found = self.look(clip)
        if found.frames_THWC is None:
            return LeftOut(found.why_not)
        if len(found.frames_THWC) < frames:
            return LeftOut(f"its video has {len(found.frames_THWC)} frames")
        return Generated(found.frames_THWC[:frames], np.zeros((frames, 0), np.float32))

    def look(self, clip: EvalClip) -> Looked:
        """A clip's frames up to the longest length; the last clip's are kept, for its other lengths. What is wrong is
        told when the clip is looked at first."""
        if self._last is None or self._last.clip != clip.key:
            self._last = None  # before the next is decoded
            found = self._found(clip)
            have = None if found.frames_THWC is None else len(found.frames_THWC)
            if clip.key not in self._seen:
                self._tell(clip.key, found)
            elif have != self.videos.get(clip.key):
                raise UserError(f"{self.row}: the video of {clip.key} was changed while it was measured; measure anew")
            self._last = Looked(clip.key, found.frames_THWC, "; ".join(found.faults))
        return self._last

    def _tell(self, clip: str, found: _Found) -> None:
        self._seen.add(clip)
        if found.faults:
            self.told.append(Told(clip, "; ".join(found.faults), found.frames_THWC is None))
        if found.frames_THWC is not None:
            self.videos[clip] = len(found.frames_THWC)
            self.mended += [f"{clip}: {text}" for text in found.mended]

    def _found(self, clip: EvalClip) -> _Found:
        files = self.files.get(clip.key, ())
        if len(files) != 1:
            return _Found([f"{len(files)} files have its name" if files else "there is no video of it"])
        try:
            decoded, heard = _decode(files[0], clip.length)
        except (UserError, Rejected) as error:
            return _Found([error.detail if isinstance(error, Rejected) else str(error)])
        except OSError as error:
            return _Found([f"{files[0].name} cannot be read ({error.strerror})"])
        return _Beside(clip, decoded, heard, self.config, self.lengths)

    def lines(self) -> list[str]:
        """Everything to tell, a line each."""
        lines = [told.line(self.row) for told in self.told] + [f"{self.row}: {text}" for text in self.mended]
        if self.others:
            shown = ", ".join(repr(name) for name in self.others[:3]) + (" ..." if len(self.others) > 3 else "")
            lines.append(f"{self.row}: files that are named as no clip, not read: {len(self.others)} ({shown})")
        return lines


def _decode(path: Path, frames: int) -> tuple[DecodedClip, bool]:
    """The first stretch of a video, at 25 frames a second on one clock with its sound, and whether it has sound."""
    if path.stat().st_size > MOST_BYTES:
        raise UserError(f"the file has more than {MOST_BYTES // 2**20} MiB")
    seconds = frames / FPS + SPARE_S
    for needs_audio in (True, False):
        stretches = iter_segments(
            path, min_seconds=1 / FPS, segment_seconds=seconds, max_seconds=seconds, needs_audio=needs_audio
        )
        try:
            with contextlib.closing(stretches):
                return next(stretches), needs_audio
        except Rejected as error:
            if error.reason != "no_sound_track":
                raise
    raise AssertionError("sound was not asked for")


@dataclass
class _Found:
    """What was found of a clip's video.

    Attributes:
        faults: what is wrong and stays so.
        mended: what was wrong and was changed, as a setting asked.
        frames_THWC: what is measured; None if nothing can be.
    """

    faults: list[str] = field(default_factory=list)
    mended: list[str] = field(default_factory=list)
    frames_THWC: np.ndarray | None = None


class _Beside(_Found):
    """What a decoded video is beside its clip."""

    def __init__(
        self, clip: EvalClip, decoded: DecodedClip, heard: bool, config: BaselineConfig, frames: Sequence[int]
    ) -> None:
        super().__init__(frames_THWC=decoded.frames)
        self._picture(decoded)
        self._rate(decoded, config)
        self._step(clip, decoded, heard, config)
        self._size(clip, decoded, config)
        self._length(clip, decoded, frames)

    def _picture(self, decoded: DecodedClip) -> None:
        """Whether the file's own tags turn its images, and whether all of them could be decoded."""
        if decoded.rotation or decoded.mirrored:
            turns = [f"turned by {decoded.rotation} degrees"] * bool(decoded.rotation) + ["mirrored"] * decoded.mirrored
            self.faults.append(f"its tags say that it is shown {' and '.join(turns)}, and so it is read")
        if decoded.damaged_frames:
            verb = "is" if decoded.damaged_frames == 1 else "are"
            self.faults.append(f"{decoded.damaged_frames} of its {len(decoded.frames)} frames {verb} damaged")

    def _rate(self, decoded: DecodedClip, config: BaselineConfig) -> None:
        if abs(decoded.source_fps - FPS) <= RATE_TOLERANCE:
            return
        told = f"{decoded.source_fps:.4g} frames a second, not {FPS}"
        if config.retime:
            self.mended.append(f"{told}: the image nearest in time is taken (baseline.retime)")
        else:
            self._unusable(f"{told} (baseline.retime=true would take the image nearest in time)")

    def _size(self, clip: EvalClip, decoded: DecodedClip, config: BaselineConfig) -> None:
        (height, width), (own_height, own_width) = decoded.frames.shape[1:3], clip.size
        if (height, width) == (own_height, own_width):
            return
        told = f"{width}x{height} pixels, not {own_width}x{own_height}"
        alike = height * own_width == width * own_height
        if config.resize and alike:
            if self.frames_THWC is None:
                return
            self.frames_THWC = _resized(self.frames_THWC, (own_width, own_height))
            self.mended.append(f"{told}: resized, bicubic (baseline.resize)")
        else:
            self._unusable(f"{told} ({'baseline.resize=true would resize it' if alike else 'another shape'})")

    def _step(self, clip: EvalClip, decoded: DecodedClip, heard: bool, config: BaselineConfig) -> None:
        """Whether the video's sound is the clip's, and begins with it."""
        if not heard:
            self.faults.append("it has no sound, so whether it is in step with the clip's is not known")
            return
        offset, alike = sound_offset(decoded.wave, clip.wave_N)
        late = round(offset / SAMPLES_PER_FRAME)
        if alike < SAME_SOUND:
            self.faults.append(f"its sound is not the clip's (correlation {alike:.2f} at best)")
            return
        if late == 0:
            return
        told = f"its sound comes {abs(offset) / 16:.0f} ms {'later' if late > 0 else 'earlier'} than the clip's"
        if config.realign and late > 0 and self.frames_THWC is not None:
            self.frames_THWC = self.frames_THWC[late:]
            self.mended.append(f"{told}: its first {late} frames are left out (baseline.realign)")
        elif late > 0:
            self.faults.append(f"{told} (baseline.realign=true would leave out its first {late} frames)")
        else:
            self.faults.append(told)

    def _length(self, clip: EvalClip, decoded: DecodedClip, frames: Sequence[int]) -> None:
        if self.frames_THWC is None:
            return
        have = len(self.frames_THWC)
        missing = [count for count in frames if count > have]
        if len(missing) == len(frames):
            self._unusable(f"{have} frames, and {frames[0]} are measured")
        elif missing:
            self.faults.append(f"{have} frames, so not measured at {', '.join(map(str, missing))}")
        elif len(decoded.frames) != clip.length:
            more = " or more" if len(decoded.frames) >= int((clip.length / FPS + SPARE_S) * FPS) else ""
            self.faults.append(f"{len(decoded.frames)}{more} frames, and the clip has {clip.length}")
        if self.frames_THWC is not None:
            self.frames_THWC = self.frames_THWC[: frames[-1]].copy()  # the rest is let go

    def _unusable(self, told: str) -> None:
        self.faults.append(told)
        self.frames_THWC = None


def _resized(frames_THWC: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    images = (Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC) for frame in frames_THWC)
    return np.stack([np.asarray(image) for image in images])
