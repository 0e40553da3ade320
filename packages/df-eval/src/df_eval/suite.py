"""The evaluation from end to end: clips, videos of every row, readings, metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tqdm import tqdm

from df_eval.clips import EvalClip
from df_eval.config import EvalConfig, ReadersConfig
from df_eval.curves import add_curves
from df_eval.generation import Generated, Progress, generate_clips, rebuild_clips
from df_eval.measure import (
    GENERATED,
    GROUND_TRUTH,
    RECONSTRUCTION,
    ROWS,
    SHIFTED,
    STATIC,
    Truth,
    Video,
    measure,
)
from df_eval.metrics.lips import silent_frames
from df_eval.networks import Networks
from df_eval.readers import FaceReader, mouth_of_structure
from df_eval.readings import FaceReadings
from df_eval.results import LengthResults
from df_infer.pipeline import Pipeline
from df_infer.rollout import RolloutConfig

Compare = Callable[[np.ndarray, np.ndarray], np.ndarray]
STILL = 13
"""Frames of the still image that are read for the static row: what SyncNet's crop is smoothed over."""


@dataclass
class Suite:
    """One evaluation in progress.

    Attributes:
        networks: that compare images, and sets of videos.
        videos: by length, one mapping of row -> video per clip (the rows that have pixels of their own).
        seconds: wall time by stage.
    """

    pipeline: Pipeline
    reader: FaceReader
    clips: Sequence[EvalClip]
    config: EvalConfig
    rollout: RolloutConfig
    quiet: bool = False
    networks: Networks = field(default_factory=lambda: Networks(ReadersConfig()))
    videos: dict[int, list[dict[str, Video]]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def run(self, lengths: Sequence[int]) -> dict[int, LengthResults]:
        """Measure every row at every length."""
        longest = max(lengths)
        with self._stage("reading the truth", len(self.clips)) as done:
            truths = [self._truth(clip, longest, done) for clip in self.clips]
        with self._stage("VAE reconstruction", 2 * len(self.clips)) as done:
            rebuilt = rebuild_clips(
                self.pipeline, self.clips, longest, batch_size=self.config.batch_size, progress=done
            )
            rebuilt_read = [self._read(frames, done) for frames in rebuilt]
        results: dict[int, LengthResults] = {}
        for frames in lengths:
            generated = self._generate(frames)
            self.videos[frames] = [
                self._rows(frames, truth, pixels, read, made)
                for truth, pixels, read, made in zip(truths, rebuilt, rebuilt_read, generated, strict=True)
            ]
            with self._stage(f"measuring {frames} frames", len(self.clips)) as done:
                results[frames] = self._measure(frames, truths, done)
        return results

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

    def _read(self, frames_THWC: np.ndarray, done: Progress) -> FaceReadings | None:
        read = self.reader.read(frames_THWC)
        done(1)
        return read

    def _generate(self, frames: int) -> list[tuple[Generated, FaceReadings | None]]:
        with self._stage(f"generating {frames} frames", 2 * len(self.clips)) as done:
            generated = generate_clips(
                self.pipeline,
                self.clips,
                frames,
                rollout=self.rollout,
                seed=self.config.seed,
                batch_size=self.config.batch_size,
                progress=done,
            )
            return [(clip, self._read(clip.frames_THWC, done)) for clip in generated]

    def _rows(
        self,
        frames: int,
        truth: _TruthRead,
        rebuilt: np.ndarray,
        rebuilt_read: FaceReadings | None,
        generated: tuple[Generated, FaceReadings | None],
    ) -> dict[str, Video]:
        made, read = generated
        layout = self.pipeline.model.config.structure_layout
        true_read = truth.read
        still = np.repeat(truth.frames_THWC[:1], frames, axis=0)
        return {
            GROUND_TRUTH: Video(truth.frames_THWC[:frames], true_read and true_read.first(frames)),
            RECONSTRUCTION: Video(rebuilt[:frames], rebuilt_read and rebuilt_read.first(frames)),
            GENERATED: Video(made.frames_THWC, read, mouth_of_structure(made.structure_TD, layout, self.reader)),
            SHIFTED: Video(made.frames_THWC, read),
            STATIC: Video(still, truth.still and truth.still.repeated(frames)),
        }

    def _measure(self, frames: int, truths: Sequence[_TruthRead], done: Progress) -> LengthResults:
        unavailable = self.networks.unavailable | self.reader.unavailable
        results = LengthResults(frames, [clip.key for clip in self.clips], unavailable=unavailable)
        mouths = [source.signals.mouth_open_T for source in truths]
        for index, (source, videos) in enumerate(zip(truths, self.videos[frames], strict=True)):
            others = [mouth for place, mouth in enumerate(mouths) if place != index and mouth is not None]
            truth = source.truth(frames, self.networks.lpips, others)
            for row in ROWS:
                video = videos[row]
                limits: Any = {"max_lag": self.config.max_lag, "shifts": self.config.shifts}
                results.measured[row].append(measure(row, video, truth, **limits))
                add_curves(results, row, video, truth, **limits)
                if row != SHIFTED:
                    self._add_features(results, row, video)
            done(1)
        return results

    def _add_features(self, results: LengthResults, row: str, video: Video) -> None:
        features = {name: extract(video.frames_THWC) for name, extract in self.networks.extractors.items()}
        if video.readings is not None:
            features["readings"] = video.readings.table()
        for name, values in features.items():
            results.features[row].setdefault(name, []).append(values)

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
