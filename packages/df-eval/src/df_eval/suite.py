"""The evaluation from end to end: clips, videos of every row, readings, metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from tqdm import tqdm

from df_eval.clips import EvalClip
from df_eval.config import EvalConfig, ReadersConfig
from df_eval.drift import Drift, measure_drift
from df_eval.measure import GROUND_TRUTH, SHIFTED, STATIC, Measured, Truth, Video, kind_of, measure, row_of
from df_eval.metrics.lips import silent_frames
from df_eval.reading.networks import Networks
from df_eval.reading.readers import FaceReader, mouth_of_structure
from df_eval.reading.readings import FaceReadings
from df_eval.reports.curves import add_curves
from df_eval.results import LengthResults
from df_eval.rows.codec import through
from df_eval.rows.generation import Progress, rebuild_clips
from df_eval.rows.interventions import Interventions, intervene
from df_eval.rows.systems import LeftOut, RunSystem, System, own_vaes, rows_of, shifted_row
from df_infer.pipeline import Pipeline

Compare = Callable[[np.ndarray, np.ndarray], np.ndarray]
STILL = 13
"""Frames of the still image that are read for the static row: what SyncNet's crop is smoothed over."""


@dataclass
class Suite:
    """One evaluation in progress.

    Attributes:
        systems: each has a row of its own.
        networks: that compare images, and sets of videos.
        videos: by length, one mapping of row -> video per clip (the rows that have pixels of their own; not those of
            systems without a video of the clip).
        seconds: wall time by stage.
        drift: what was measured over a long generation; None if nothing was asked for.
        interventions: what was measured with swapped structure and references; None likewise.
    """

    systems: Sequence[System]
    reader: FaceReader
    clips: Sequence[EvalClip]
    config: EvalConfig
    quiet: bool = False
    networks: Networks = field(default_factory=lambda: Networks(ReadersConfig()))
    videos: dict[int, list[dict[str, Video]]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    drift: Drift | None = None
    interventions: Interventions | None = None

    def run(self, lengths: Sequence[int]) -> dict[int, LengthResults]:
        """Measure every row at every length."""
        longest = max(lengths)
        with self._stage("reading the truth", len(self.clips)) as done:
            truths = [self._truth(clip, longest, done) for clip in self.clips]
        rebuilt = {row: self._rebuilt(row, pipeline, longest) for row, pipeline in own_vaes(self.systems).items()}
        results: dict[int, LengthResults] = {}
        for frames in lengths:
            self.videos[frames] = [self._controls(frames, truth) for truth in truths]
            for row, videos in rebuilt.items():
                for rows, video in zip(self.videos[frames], videos, strict=True):
                    rows[row] = Video(video.frames_THWC[:frames], video.readings and video.readings.first(frames))
            left_out = {system.row: self._make(system, frames) for system in self.systems}
            with self._stage(f"measuring {frames} frames", len(self.clips)) as done:
                results[frames] = self._measure(frames, truths, left_out, done)
        known = [truth.truth(longest, None, []) for truth in truths]
        if self.config.interventions:
            self._intervene(longest, known)
        if self.config.drift.frames is not None:
            self._drift(longest, known)
        return results

    def _intervene(self, longest: int, known: Sequence[Truth]) -> None:
        self.interventions = Interventions(longest, [clip.identity for clip in self.clips])
        runs = [system for system in self.systems if isinstance(system, RunSystem)]
        for system in runs:
            name = partial(row_of, system=system.row) if len(self.systems) > 1 else str
            with self._stage(f"interventions, {system.row}", 2 * len(self.clips)) as done:
                about = (system, self.clips, known, self.videos[longest], self.reader, self.config)
                intervene(*about, self.interventions, done, name)

    def _drift(self, longest: int, known: Sequence[Truth]) -> None:
        start = time.perf_counter()
        held = self.videos[longest]
        self.drift = measure_drift(self.systems, self.clips, known, held, self.reader, self.config, self.quiet)
        self.seconds["drift"] = round(time.perf_counter() - start, 2)

    def _truth(self, clip: EvalClip, longest: int, done: Progress) -> _TruthRead:
        read = self.reader.read(clip.frames_THWC[:longest])
        signals = self.reader.truth(clip)
        still = self._still(clip.frames_THWC[0], read)
        done(1)
        silent = silent_frames(clip.wave_N, len(clip.frames_THWC))
        return _TruthRead(clip.frames_THWC[:longest], read, signals, still, silent)

    def _still(self, frame_HWC: np.ndarray, read: FaceReadings | None) -> FaceReadings | None:
        """The reading of the first frame; what is read of several frames together, from that frame held still."""
        if read is None or read.seen_TD is None:
            return read and read.first(1)
        held = self.reader.read(np.repeat(frame_HWC[None], STILL, axis=0))
        return read.first(1).but(FaceReadings(read.presence_T[:1], seen_TD=held and held.first(1).seen_TD))

    def _rebuilt(self, row: str, pipeline: Pipeline, longest: int) -> list[Video]:
        with self._stage(row, 2 * len(self.clips)) as done:
            videos = rebuild_clips(pipeline, self.clips, longest, batch_size=self.config.batch_size, progress=done)
            coded = (through(self.config.codec, frames) for frames in videos)
            return [Video(frames, self._read(frames, done)) for frames in coded]

    def _read(self, frames_THWC: np.ndarray, done: Progress) -> FaceReadings | None:
        read = self.reader.read(frames_THWC)
        done(1)
        return read

    def _controls(self, frames: int, truth: _TruthRead) -> dict[str, Video]:
        """The rows that no system makes."""
        still = np.repeat(truth.frames_THWC[:1], frames, axis=0)
        return {
            GROUND_TRUTH: Video(truth.frames_THWC[:frames], truth.read and truth.read.first(frames)),
            STATIC: Video(still, truth.still and truth.still.repeated(frames)),
        }

    def _make(self, system: System, frames: int) -> dict[int, str]:
        """Put a system's videos into their rows; returns the clips of which it has none, with the reason."""
        left_out: dict[int, str] = {}
        with self._stage(f"{system.row}, {frames} frames", 2 * len(self.clips)) as done:
            made = system.make(self.clips, frames, done)
            for index, (rows, clip) in enumerate(zip(self.videos[frames], made, strict=True)):
                if isinstance(clip, LeftOut):
                    left_out[index] = clip.reason
                    continue
                coded = clip.frames_THWC
                if isinstance(system, RunSystem):  # others come through a codec of their own
                    coded = through(self.config.codec, coded)
                read = self._read(coded, done)
                mouth_T = mouth_of_structure(clip.structure_TD, system.layout, self.reader)
                rows[system.row] = Video(coded, read, mouth_T)
                rows[shifted_row(system, self.systems)] = Video(coded, read)
        return left_out

    def _measure(
        self, frames: int, truths: Sequence[_TruthRead], left_out: dict[str, dict[int, str]], done: Progress
    ) -> LengthResults:
        unavailable = self.networks.unavailable | self.reader.unavailable
        left_out = left_out | {shifted_row(system, self.systems): left_out[system.row] for system in self.systems}
        keys, people = [clip.key for clip in self.clips], [clip.identity for clip in self.clips]
        results = LengthResults(frames, keys, people, rows_of(self.systems), unavailable=unavailable)
        mouths = [source.signals.mouth_open_T for source in truths]
        limits: Any = {"max_lag": self.config.max_lag, "shifts": self.config.shifts}
        for index, (source, videos) in enumerate(zip(truths, self.videos[frames], strict=True)):
            others = [mouth for place, mouth in enumerate(mouths) if place != index and mouth is not None]
            truth = source.truth(frames, self.networks.lpips, others)
            for row in results.rows:
                if (reason := left_out.get(row, {}).get(index)) is not None:
                    results.measured[row].append(Measured({}, left_out=reason))
                    continue
                video = videos[row]
                results.measured[row].append(measure(row, video, truth, **limits))
                add_curves(results, row, index, video, truth, **limits)
                if kind_of(row) != SHIFTED:
                    self._add_features(results, row, index, video)
            done(1)
        return results

    def _add_features(self, results: LengthResults, row: str, index: int, video: Video) -> None:
        for name, extract in self.networks.extractors.items():
            results.add_features(row, index, name, extract(video.frames_THWC))
        if video.readings is not None:
            results.add_features(row, index, "readings", video.readings.table())

    @contextmanager
    def _stage(self, name: str, total: int) -> Iterator[Progress]:
        start = time.perf_counter()
        with tqdm(total=total, desc=f"{name:<24}", unit="clip", disable=self.quiet, leave=True) as bar:
            yield bar.update
            bar.update(total - bar.n)
        self.seconds[name] = round(time.perf_counter() - start, 2)


@dataclass(frozen=True)
class _TruthRead:
    frames_THWC: np.ndarray
    read: FaceReadings | None
    signals: FaceReadings
    still: FaceReadings | None
    silent_T: np.ndarray

    def truth(self, frames: int, lpips: Compare | None, others: Sequence[np.ndarray]) -> Truth:
        identity_TD = None if self.read is None else self.read.identity_TD
        if identity_TD is not None and not np.isfinite(identity_TD).any():
            identity_TD = None
        return Truth(
            self.frames_THWC[:frames],
            self.signals,
            reference_identity_D=None if identity_TD is None else identity_TD[0],
            person_identity_D=None if identity_TD is None else np.nanmean(identity_TD, axis=0),
            other_mouths=others,
            silent_T=self.silent_T,
            lpips=lpips,
        )
