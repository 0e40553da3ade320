"""The evaluation from end to end: clips, videos of every row, readings, metrics."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from tqdm import tqdm

from df_eval.clips import EvalClip
from df_eval.config import EvalConfig, ReadersConfig
from df_eval.drift import Drift, add_drift_of_clip, generate_drift, no_drift_yet
from df_eval.measure import GROUND_TRUTH, SHIFTED, STATIC, Measured, Truth, Video, kind_of, measure, row_of
from df_eval.metrics.lips import silent_frames
from df_eval.reading.networks import PER_FRAME, Networks
from df_eval.reading.readers import FaceReader, lips_of_structure
from df_eval.reading.readings import FaceReadings
from df_eval.reading.real import RealFaceReader
from df_eval.reports.curves import add_curves
from df_eval.results import LengthResults
from df_eval.rows.codec import through
from df_eval.rows.generation import Generated, Progress, rebuild_clips
from df_eval.rows.interventions import Interventions, intervene
from df_eval.rows.sync_codecs import SyncCodecs, add_codecs, heard_through
from df_eval.rows.systems import LeftOut, RunSystem, System, own_vaes, rows_of, shifted_row
from df_eval.true_clip import TrueClip
from df_infer.pipeline import Pipeline

STILL = 13
"""Frames of the still image that are read for the static row: what SyncNet's crop is smoothed over."""


@dataclass
class Suite:
    """One evaluation in progress.

    Attributes:
        systems: each has a row of its own.
        networks: that compare images, and sets of videos.
        videos: by length, one mapping of row -> video for each clip that is shown (the rows that have pixels of their
            own; not those of systems without a video of the clip).
        seconds: wall time by stage.
        drift: what was measured over a long generation; None if nothing was asked for.
        interventions: what was measured with swapped structure and references; None likewise.
        sync_codecs: SyncNet's scores behind codecs; None likewise.
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
    sync_codecs: SyncCodecs | None = None

    def run(self, lengths: Sequence[int]) -> dict[int, LengthResults]:
        """Measure every row at every length; the videos of one clip after the other, few of them in memory."""
        longest = max(lengths)
        results = {frames: self._nothing_yet(frames) for frames in lengths}
        self.drift = None if self.config.drift.frames is None else self._drift_yet()
        self.sync_codecs = self._codecs_yet(longest) if self.config.sync_codecs else None
        if self.sync_codecs is not None and self.sync_codecs.missing:
            print(f"sync_codecs measures nothing: {self.sync_codecs.missing}", file=sys.stderr)
        with tqdm(total=self._videos(lengths), desc="measuring", unit="video", disable=self.quiet) as bar:
            truths, readings = self._measure_clips(results, bar)
            with self._timed("measuring beside other clips", bar):
                for found in results.values():
                    found.add_others([source.signals for source in truths])
            known = [source.truth(source.first_1HWC) for source in truths]  # frames of all would fill the memory
            if self.config.interventions:
                self._intervene(longest, known, readings, bar)
        if self.drift is not None:
            with self._timed("drift"):
                about = (self.systems, self.clips, known, self.reader, self.config, self.networks.extractors)
                generate_drift(self.drift, *about, self.quiet)
            self.drift.tell_missing()
        self.seconds = {name: round(seconds, 2) for name, seconds in self.seconds.items()}
        return results

    def _videos(self, lengths: Sequence[int]) -> int:
        """Steps of the bar: the truth is read, every other video is made and read, interventions are made."""
        made = len(own_vaes(self.systems)) + len(lengths) * len(self.systems)
        swapped = 2 * sum(isinstance(system, RunSystem) for system in self.systems) * self.config.interventions
        return len(self.clips) * (1 + 2 * made + swapped)

    def _measure_clips(
        self, results: Mapping[int, LengthResults], bar: tqdm
    ) -> tuple[list[TrueClip], list[dict[str, FaceReadings | None]]]:
        """Measure every clip at every length, the longest first: what was computed of a video holds for its beginning.
        Each video is decoded once, read, measured and let go. Returns what was read of the true clips, and of the runs'
        videos of the longest."""
        lengths, longest = sorted(results, reverse=True), max(results)
        self.videos = {frames: [] for frames in results}
        vaes, truths, readings = own_vaes(self.systems), [], []
        runs = {system.row for system in self.systems if isinstance(system, RunSystem)}
        once = {row for s in self.systems if s.row not in runs for row in (s.row, shifted_row(s, self.systems))}
        rebuilt = {row: self._rebuild(pipeline, longest, bar) for row, pipeline in vaes.items()}
        made = {
            (system.row, frames): system.make(self.clips, frames, bar.update)
            for system in self.systems
            for frames in lengths
        }
        for index in range(len(self.clips)):
            true_THWC, source = self._truth(index, longest, bar)
            truths.append(source)
            held = self._controls(true_THWC, source)
            held |= {row: self._rebuilt(row, clips, bar) for row, clips in rebuilt.items()}
            for frames in lengths:
                videos = {row: video.first(frames) for row, video in held.items()}
                left_out = self._make(frames, made, videos, bar)
                held |= {row: video for row, video in videos.items() if row in once}
                with self._timed(f"measuring {frames} frames", bar):
                    self._measure(results[frames], index, source, videos, left_out)
                if index < self.config.shown:
                    self.videos[frames].append(videos)
                if frames == longest:
                    self._add_codecs(index, videos)
                    readings.append({row: video.readings for row, video in videos.items() if row in runs})
                    if self.drift is not None:
                        own = source.truth(true_THWC)
                        add_drift_of_clip(self.drift, self.systems, index, own, videos, self.networks.extractors)
            del true_THWC, held, videos  # before the next clip's are decoded
        for rest in (*rebuilt.values(), *made.values()):
            assert next(rest, None) is None, "a system makes one video of each clip"
        return truths, readings

    def _drift_yet(self) -> Drift:
        return no_drift_yet(self.systems, self.clips, self.config, self.reader, self.networks.extractors)

    def _codecs_yet(self, longest: int) -> SyncCodecs:
        found = SyncCodecs(longest, [clip.identity for clip in self.clips])
        if not isinstance(self.reader, RealFaceReader):
            found.missing = "only the reader of real faces has SyncNet"
        elif not self.reader.hears:
            found.missing = self.reader.unavailable["sync_c"]
        return found

    def _add_codecs(self, index: int, videos: Mapping[str, Video]) -> None:
        """Measure a clip's own videos behind every codec, if that is asked for and can be."""
        if self.sync_codecs is None or self.sync_codecs.missing or not isinstance(self.reader, RealFaceReader):
            return
        with self._timed("codecs"):
            heard = heard_through(self.reader, self.clips[index])
            for row in (GROUND_TRUTH, *(system.row for system in self.systems)):
                video = videos.get(row)
                if video is None or video.readings is None or video.readings.seen_TD is None:
                    continue
                read = (video.frames_THWC, video.readings.seen_TD, heard, self.reader)
                add_codecs(self.sync_codecs, row, index, *read)

    def _intervene(
        self, longest: int, known: Sequence[Truth], readings: Sequence[Mapping[str, FaceReadings | None]], bar: tqdm
    ) -> None:
        self.interventions = Interventions(longest, [clip.identity for clip in self.clips])
        runs = [system for system in self.systems if isinstance(system, RunSystem)]
        for system in runs:
            name = partial(row_of, system=system.row) if len(self.systems) > 1 else str
            own = [rows.get(system.row) for rows in readings]
            with self._timed(f"interventions, {system.row}", bar):
                about = (system, self.clips, known, own, self.reader, self.config)
                intervene(*about, self.interventions, bar.update, name)

    def _truth(self, index: int, longest: int, bar: tqdm) -> tuple[np.ndarray, TrueClip]:
        """A clip's true frames of the longest length, and what is kept of the clip."""
        clip = self.clips[index]
        with self._timed("decoding the truth", bar):
            held = clip.held()
        with self._timed("reading the truth", bar):
            whole_THWC = held.frames_THWC
            read, signals = self._read_true(held, longest)
            still = self._still(whole_THWC[0], read)
            bar.update(1)
        silent_T = silent_frames(clip.wave_N, clip.count)
        return whole_THWC[:longest], TrueClip(whole_THWC[:1].copy(), read, signals, still, silent_T)

    def _read_true(self, clip: EvalClip, longest: int) -> tuple[FaceReadings | None, FaceReadings]:
        """The reading of the true frames, and the true signals of the whole clip."""
        if isinstance(self.reader, RealFaceReader):
            return self.reader.read_true(clip, longest)
        return self.reader.read(clip.frames_THWC[:longest]), self.reader.truth(clip)

    def _still(self, frame_HWC: np.ndarray, read: FaceReadings | None) -> FaceReadings | None:
        """The reading of the first frame; what is read of several frames together, from that frame held still."""
        if read is None or read.seen_TD is None:
            return read and read.first(1)
        held = self.reader.read(np.repeat(frame_HWC[None], STILL, axis=0))
        return read.first(1).but(FaceReadings(read.presence_T[:1], seen_TD=held and held.first(1).seen_TD))

    def _rebuild(self, pipeline: Pipeline, longest: int, bar: tqdm) -> Iterator[np.ndarray]:
        size = self.config.batch_size
        return rebuild_clips(pipeline, self.clips, longest, batch_size=size, progress=bar.update)

    def _rebuilt(self, row: str, clips: Iterator[np.ndarray], bar: tqdm) -> Video:
        """The next clip's reconstruction."""
        with self._timed(row, bar):
            coded_THWC = through(self.config.codec, next(clips))
            return Video(coded_THWC, self._read(coded_THWC, bar.update))

    def _read(self, frames_THWC: np.ndarray, done: Progress) -> FaceReadings | None:
        read = self.reader.read(frames_THWC)
        done(1)
        return read

    def _controls(self, true_THWC: np.ndarray, truth: TrueClip) -> dict[str, Video]:
        """The rows that no system makes."""
        frames = len(true_THWC)
        still = np.broadcast_to(true_THWC[:1].copy(), true_THWC.shape)  # one image in memory
        return {
            GROUND_TRUTH: Video(true_THWC, truth.read and truth.read.first(frames)),
            STATIC: Video(still, truth.still and truth.still.repeated(frames)),
        }

    def _make(
        self,
        frames: int,
        made: Mapping[tuple[str, int], Iterator[Generated | LeftOut]],
        videos: dict[str, Video],
        bar: tqdm,
    ) -> dict[str, str]:
        """Put every system's video of the next clip into its rows; returns the rows that have none, with the reason.

        Args:
            videos: of the clip by row; a video of a folder is in it if a longer one was read, whose beginning it is.
        """
        left_out: dict[str, str] = {}
        for system in self.systems:
            shifted = shifted_row(system, self.systems)
            with self._timed(f"{system.row}, {frames} frames", bar):
                clip = next(made[system.row, frames])
                if isinstance(clip, LeftOut):
                    left_out |= {system.row: clip.reason, shifted: clip.reason}
                    bar.update(1)
                    continue
                if system.row in videos:
                    bar.update(1)
                    continue
                coded = clip.frames_THWC
                if isinstance(system, RunSystem):  # others come through a codec of their own
                    coded = through(self.config.codec, coded)
                read = self._read(coded, bar.update)
                lips = lips_of_structure(clip.structure_TD, system.layout, self.reader)
                videos[system.row] = Video(coded, read, lips)
                videos[shifted] = Video(coded, read)
        return left_out

    def _nothing_yet(self, frames: int) -> LengthResults:
        unavailable = self.networks.unavailable | self.reader.unavailable
        keys, people = [clip.key for clip in self.clips], [clip.identity for clip in self.clips]
        return LengthResults(frames, keys, people, rows_of(self.systems), unavailable=unavailable)

    def _measure(
        self,
        results: LengthResults,
        index: int,
        source: TrueClip,
        videos: Mapping[str, Video],
        left_out: Mapping[str, str],
    ) -> None:
        """Measure one clip in every row."""
        true = videos[GROUND_TRUTH]
        truth = source.truth(true.frames_THWC, self.networks.lpips, true.values)
        limits: Any = {"max_lag": self.config.max_lag, "shifts": self.config.shifts}
        for row in results.rows:
            if row in left_out:
                results.measured[row].append(Measured({}, left_out=left_out[row]))
                continue
            results.measured[row].append(measure(row, videos[row], truth, **limits))
            add_curves(results, row, index, videos[row], truth, **limits)
            if kind_of(row) != SHIFTED:
                self._add_features(results, row, index, videos[row])

    def _add_features(self, results: LengthResults, row: str, index: int, video: Video) -> None:
        for name, extract in self.networks.extractors.items():
            seen = partial(extract, video.frames_THWC)
            one_each = name in PER_FRAME
            values = video.values.first(name, len(video.frames_THWC), seen) if one_each else seen()
            results.add_features(row, index, name, values)
        if video.readings is not None:
            results.add_features(row, index, "readings", video.readings.table())

    @contextmanager
    def _timed(self, stage: str, bar: tqdm | None = None) -> Iterator[None]:
        """Name what is done, behind the bar's numbers when it is next drawn, and count its time."""
        start = time.perf_counter()
        if bar is not None:
            bar.set_postfix_str(stage, refresh=False)
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start
