"""The evaluation from end to end: clips, videos of every row, readings, metrics."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from tqdm import tqdm

from df_eval.clips import EvalClip
from df_eval.config import EvalConfig
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
from df_eval.readers import FaceReader, mouth_of_structure
from df_eval.readings import FaceReadings
from df_eval.results import LengthResults
from df_infer.pipeline import Pipeline
from df_infer.rollout import RolloutConfig


@dataclass
class Suite:
    """One evaluation in progress.

    Attributes:
        videos: by length, one mapping of row -> video per clip (the rows that have pixels of their own).
        seconds: wall time by stage.
    """

    pipeline: Pipeline
    reader: FaceReader
    clips: Sequence[EvalClip]
    config: EvalConfig
    rollout: RolloutConfig
    quiet: bool = False
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
        done(1)
        return _TruthRead(clip.frames_THWC[:longest], read, signals)

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
            STATIC: Video(still, true_read and true_read.repeated(frames)),
        }

    def _measure(self, frames: int, truths: Sequence[_TruthRead], done: Progress) -> LengthResults:
        results = LengthResults(frames, [clip.key for clip in self.clips], unavailable=dict(self.reader.unavailable))
        mouths = [source.signals.mouth_open_T for source in truths]
        for index, (source, videos) in enumerate(zip(truths, self.videos[frames], strict=True)):
            others = [mouth for place, mouth in enumerate(mouths) if place != index and mouth is not None]
            truth = replace(source.truth(frames), other_mouths=others)
            for row in ROWS:
                video = videos[row]
                limits: Any = {"max_lag": self.config.max_lag, "shifts": self.config.shifts}
                results.measured[row].append(measure(row, video, truth, **limits))
                add_curves(results, row, video, truth, **limits)
            done(1)
        return results

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

    def truth(self, frames: int) -> Truth:
        identity = None if self.read is None else self.read.identity_TD
        if identity is None or not np.isfinite(identity).any():
            return Truth(self.frames_THWC[:frames], self.signals, None)
        return Truth(self.frames_THWC[:frames], self.signals, identity[0], np.nanmean(identity, axis=0))
