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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import signal

from df_data.sources.catalogue.layouts import SUFFIXES
from df_data.stages.decode import DecodedClip, iter_segments
from df_data.stages.rejection import Rejected
from df_eval.clips import EvalClip
from df_eval.config import BaselineConfig
from df_eval.rows.generation import Generated, Progress
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
QUIET = 1e-4
"""Root mean square of full scale below which there is nothing to compare."""


@dataclass(frozen=True)
class Told:
    """What was found of one clip's video, in words, and whether the clip is left out."""

    clip: str
    text: str
    left_out: bool

    def line(self, system: str) -> str:
        return f"{system}: {self.clip}: {self.text}; {'left out' if self.left_out else 'measured as it is'}"


class Usable(NamedTuple):
    """A video that can be measured, and how many of its frames."""

    path: Path
    frames: int


@dataclass
class FolderSystem:
    """Videos of a folder. They are looked through once, and decoded again when they are measured: none is held.

    Attributes:
        lengths: that are measured, rising.
        videos: by the clips' names.
        told: what is wrong, clip by clip; ``mended``: what was changed because a setting asked for it.
        others: files of the folder that are named as no clip.
    """

    row: str
    config: BaselineConfig
    lengths: Sequence[int]
    videos: dict[str, Usable] = field(default_factory=dict)
    told: list[Told] = field(default_factory=list)
    mended: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    layout: StructureLayout | None = None
    _last: tuple[str, np.ndarray] | None = None

    def make(self, clips: Sequence[EvalClip], frames: int, progress: Progress) -> Iterator[Generated | LeftOut]:
        for clip in clips:
            made = self._first(clip, frames)
            progress(1)
            yield made

    def _first(self, clip: EvalClip, frames: int) -> Generated | LeftOut:
        video = self.videos.get(clip.key)
        if video is None:
            return LeftOut(next(told.text for told in self.told if told.clip == clip.key and told.left_out))
        if video.frames < frames:
            return LeftOut(f"its video has {video.frames} frames")
        return Generated(self._frames(clip, video.path)[:frames], np.zeros((frames, 0), np.float32))

    def _frames(self, clip: EvalClip, path: Path) -> np.ndarray:
        """A clip's frames up to the longest length; the last clip's are kept, for its other lengths."""
        if self._last is None or self._last[0] != clip.key:
            try:
                found = _Found(clip, *_decode(path, clip.length), self.config, self.lengths).frames_THWC
            except (OSError, Rejected) as error:
                raise UserError(f"{path} cannot be read any more; it was changed while it was measured") from error
            if found is None or len(found) != self.videos[clip.key].frames:
                raise UserError(f"{path} was changed while it was measured; measure anew")
            self._last = clip.key, found
        return self._last[1]

    def lines(self) -> list[str]:
        """Everything to tell, a line each."""
        lines = [told.line(self.row) for told in self.told] + [f"{self.row}: {text}" for text in self.mended]
        if self.others:
            shown = ", ".join(repr(name) for name in self.others[:3]) + (" ..." if len(self.others) > 3 else "")
            lines.append(f"{self.row}: files that are named as no clip, not read: {len(self.others)} ({shown})")
        return lines


def read_folder(
    row: str, directory: Path, clips: Sequence[EvalClip], frames: Sequence[int], config: BaselineConfig
) -> FolderSystem:
    """Look through a baseline's videos of the clips, one at a time.

    Args:
        frames: lengths that will be measured, rising.

    Raises:
        UserError: there is no such folder, or not one of its videos can be measured.
    """
    if not directory.is_dir():
        raise UserError(f"--baseline {row}={directory}: there is no such folder of videos")
    system, named = FolderSystem(row, config, frames), _by_name(directory)
    system.others = sorted(path.name for name in named.keys() - {clip.key for clip in clips} for path in named[name])
    for clip in clips:
        _look(system, clip, named.get(clip.key, []))
    if not any(video.frames >= frames[0] for video in system.videos.values()):
        why = system.told[0] if system.told else Told("", "", True)
        raise UserError(f"--baseline {row}={directory}: none of the {len(clips)} clips can be measured "
                        f"({why.clip}: {why.text})")  # fmt: skip
    return system


def _by_name(directory: Path) -> dict[str, list[Path]]:
    """The folder's videos by their names without the ending: a clip's name is looked up here and is never a path."""
    found: dict[str, list[Path]] = {}
    for path in sorted(directory.iterdir()):
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith("."):
            found.setdefault(path.stem, []).append(path)
    return found


def _look(system: FolderSystem, clip: EvalClip, files: Sequence[Path]) -> None:
    if len(files) != 1:
        text = f"{len(files)} files have its name" if files else "there is no video of it"
        system.told.append(Told(clip.key, text, True))
        return
    try:
        decoded, heard = _decode(files[0], clip.length)
    except (UserError, Rejected) as error:
        text = error.detail if isinstance(error, Rejected) else str(error)
        system.told.append(Told(clip.key, text, True))
        return
    found = _Found(clip, decoded, heard, system.config, system.lengths)
    if found.faults:
        system.told.append(Told(clip.key, "; ".join(found.faults), found.frames_THWC is None))
    if found.frames_THWC is not None:
        system.videos[clip.key] = Usable(files[0], len(found.frames_THWC))
        system.mended += [f"{clip.key}: {text}" for text in found.mended]


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


class _Found:
    """What a decoded video is beside its clip.

    Attributes:
        faults: what is wrong and stays so.
        mended: what was wrong and was changed, as a setting asked.
        frames_THWC: what is measured; None if nothing can be.
    """

    def __init__(
        self, clip: EvalClip, decoded: DecodedClip, heard: bool, config: BaselineConfig, frames: Sequence[int]
    ) -> None:
        self.faults: list[str] = []
        self.mended: list[str] = []
        self.frames_THWC: np.ndarray | None = decoded.frames
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
            self._unusable(told)

    def _size(self, clip: EvalClip, decoded: DecodedClip, config: BaselineConfig) -> None:
        (height, width), (own_height, own_width) = decoded.frames.shape[1:3], clip.size
        if (height, width) == (own_height, own_width):
            return
        told = f"{width}x{height} pixels, not {own_width}x{own_height}"
        if config.resize and height * own_width == width * own_height:
            if self.frames_THWC is None:
                return
            self.frames_THWC = _resized(self.frames_THWC, (own_width, own_height))
            self.mended.append(f"{told}: resized, bicubic (baseline.resize)")
        else:
            self._unusable(told)

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


def sound_offset(wave_N: np.ndarray, true_N: np.ndarray) -> tuple[float, float]:
    """By how many samples a sound comes later than the true one, and their correlation there.

    The peak of the cross-correlation over all offsets that leave a quarter of the shorter sound to compare,
    normalised by the energy of what overlaps; (0, 0) if either is silent.
    """
    wave, true = (np.asarray(x, dtype=np.float64) - np.mean(x) for x in (wave_N, true_N))
    if min(np.sqrt(np.mean(wave**2)), np.sqrt(np.mean(true**2))) < QUIET:
        return 0.0, 0.0
    products = signal.correlate(wave, true, method="fft")
    lags = signal.correlation_lags(len(wave), len(true))
    energy = np.sqrt(_overlap_energy(wave, lags, len(true)) * _overlap_energy(true, -lags, len(wave)))
    overlap = np.minimum(len(wave), len(true) + lags) - np.maximum(0, lags)
    enough = (overlap >= min(len(wave), len(true)) / 4) & (energy > QUIET)
    scores = np.where(enough, products / np.maximum(energy, 1e-12), -1.0)
    best = int(np.argmax(scores))
    return float(lags[best]), float(scores[best])


def _overlap_energy(wave: np.ndarray, lags: np.ndarray, other: int) -> np.ndarray:
    """Energy of the part of ``wave`` that overlaps a signal of ``other`` samples which begins at each lag in it."""
    total = np.concatenate([[0.0], np.cumsum(wave**2)])
    return total[np.clip(lags + other, 0, len(wave))] - total[np.clip(lags, 0, len(wave))]


def _resized(frames_THWC: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    images = (Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC) for frame in frames_THWC)
    return np.stack([np.asarray(image) for image in images])
