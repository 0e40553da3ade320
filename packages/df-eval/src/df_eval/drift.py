"""What becomes of a long generation: windows of it are read and measured as it is made, and dropped.

The systems' videos go on for as long as is asked, on speech that is made of the clips (`df_eval.rows.long_speech`).
Truth, reconstruction and other systems' files have windows up to the longest measured length, as no more of them is
held; the still image has them everywhere, its lip-sync as far as the clip's own true mouth goes.

Shape suffixes: B clips, P pixel frames of a piece, W pixel frames of a window, T pixel frames, D features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from df_eval.clips import EvalClip
from df_eval.config import EvalConfig
from df_eval.drift_sets import SET_TITLES, Extractors, WindowSets, distances_of
from df_eval.measure import SHIFTED, STATIC, Truth, Video, kind_of
from df_eval.metrics import SET_SPECS, SPECS, Pair, Score, sync
from df_eval.metrics.aggregate import pooled_score
from df_eval.metrics.frames import sharpness
from df_eval.metrics.seen import Seen
from df_eval.reading.readers import FaceReader
from df_eval.reading.readings import FaceReadings
from df_eval.reading.real import RealFaceReader
from df_eval.reading.windows import window_ends, windows_of
from df_eval.rows.codec import through
from df_eval.rows.generation import decode_next, model_inputs
from df_eval.rows.long_speech import LongSpeech
from df_eval.rows.systems import RunSystem, System, rows_of, shifted_row
from df_infer.rollout import stream_latents
from df_models.intervals.ranges import NOT_NEGATIVE

READ = ("identity_distance", "csim", "lip_sync", "pose_range", "presence")
"""Metrics of the list that are measured in a window."""
SHARPNESS = "sharpness_reference"
TITLES = {name: SPECS[name].title for name in READ} | {SHARPNESS: "sharpness / reference image"} | SET_TITLES
DECIMALS = {name: SET_SPECS[name].decimals for name in SET_TITLES}
"""Of the quantities that are not printed with three."""
RANGES = {name: SPECS[name].within for name in READ} | {SHARPNESS: NOT_NEGATIVE}


class WindowTruth(NamedTuple):
    """What a window of a clip is measured against: its reference image and that one's identity, and the true mouth in
    the window (None: not known)."""

    reference_HWC: np.ndarray
    identity_D: np.ndarray | None
    mouth_T: np.ndarray | None


DriftTables = dict[str, dict[str, dict[int, Score]]]
"""By metric and row, the scores by the frame after which a window ends."""


@dataclass
class Drift:
    """Everything measured over a long generation.

    Attributes:
        ends: pixel frames after which the windows end.
        people: of the clips; what intervals resample.
        sets: what distances of distributions compare in the windows.
        pairs: by row, metric and end, the clips' pairs by index.
        missing: by row, why it has no windows at all, or none beyond some length; by quantity, why it is not there.
    """

    frames: int
    window: int
    ends: Sequence[int]
    rows: Sequence[str]
    people: Sequence[str]
    sets: WindowSets = field(default_factory=lambda: WindowSets([], 0, []))
    pairs: dict[str, dict[str, dict[int, dict[int, Pair]]]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    _tables: dict[tuple[int, int], DriftTables] = field(default_factory=dict, init=False, repr=False)

    def add(
        self,
        row: str,
        end: int,
        index: int,
        pairs: Mapping[str, Pair],
        features: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Add a clip's window: its pairs, and what distances of distributions compare."""
        self._tables.clear()
        self.sets.add(row, end, index, features or {})
        for name, pair in pairs.items():
            self.pairs.setdefault(row, {}).setdefault(name, {}).setdefault(end, {})[index] = pair

    def tell_missing(self) -> None:
        """Say which rows were never added, and which distances are not there, now that all is measured."""
        self.missing |= self.sets.missing()
        for row in self.rows:
            if row not in self.pairs and kind_of(row) != SHIFTED:
                self.missing.setdefault(row, "no video of it is long enough for a window")

    def scores(self, row: str, name: str, seed: int, resamples: int) -> dict[int, Score]:
        """A metric of a row by end, with intervals; windows without any value are left out."""
        if name in SET_TITLES:
            return self.sets.scores(row, name, seed, resamples)
        found: dict[int, Score] = {}
        for end, pairs in sorted(self.pairs.get(row, {}).get(name, {}).items()):
            score = pooled_score(pairs, self.people, seed, resamples, within=RANGES[name])
            if score.value is not None:
                found[end] = score
        return found

    def tables(self, seed: int, resamples: int) -> DriftTables:
        """By metric and row, the scores by end; only what has a value. Made once for every reader of them."""
        if (seed, resamples) not in self._tables:
            tables = {
                name: {row: found for row in self.rows if (found := self.scores(row, name, seed, resamples))}
                for name in TITLES
            }
            self._tables[seed, resamples] = {name: rows for name, rows in tables.items() if rows}
        return self._tables[seed, resamples]

    def to_json(self, seed: int, resamples: int) -> dict[str, Any]:
        """Plain JSON: by metric and row a list of scores, each with the pixel frame and second at which it ends."""
        told = {
            name: {
                row: [{"frame": end, "seconds": end / 25, **score.to_json()} for end, score in found.items()]
                for row, found in rows.items()
            }
            for name, rows in self.tables(seed, resamples).items()
        }
        return {"frames": self.frames, "window": self.window, "ends": list(self.ends), "metrics": told,
                "missing": self.missing}  # fmt: skip


def no_drift_yet(
    systems: Sequence[System], clips: Sequence[EvalClip], config: EvalConfig, reader: FaceReader, extractors: Extractors
) -> Drift:
    """What ``config.drift`` asks for, before anything is measured.

    Args:
        extractors: what networks see in frames, by the features' names (:class:`df_eval.reading.networks.Networks`).
    """
    frames, window = config.drift.frames, config.drift.window
    assert frames is not None
    people = [clip.identity for clip in clips]
    ends = window_ends(frames, window, config.drift.at)
    sets = WindowSets(distances_of(extractors, rendered=not isinstance(reader, RealFaceReader)), ends[0], people)
    return Drift(frames, window, ends, rows_of(systems), people, sets)


def generate_drift(
    drift: Drift,
    systems: Sequence[System],
    clips: Sequence[EvalClip],
    truths: Sequence[Truth],
    reader: FaceReader,
    config: EvalConfig,
    extractors: Extractors,
    quiet: bool = False,
) -> None:
    """Generate ``drift.frames`` pixel frames with every run, and measure the windows.

    Args:
        truths: of the clips; of their frames the first alone is read.
    """
    speech = LongSpeech(clips)
    for system in systems:
        if not isinstance(system, RunSystem):
            continue
        if (why := _cannot(system)) is not None:
            drift.missing[system.row] = why
            continue
        measured = _Stream(system, shifted_row(system, systems), speech, truths, reader, config, extractors)
        measured.into(drift, quiet)


def _cannot(system: RunSystem) -> str | None:
    """Why a run makes no video of any length."""
    if system.pipeline.model.config.one_level_frames:
        return "the model makes whole clips of a limited length"
    if system.rollout.structure_from is not None:
        return "its structure is given (rollout.structure_from), and no longer track than a clip is there"
    return None


@dataclass(frozen=True)
class _Stream:
    """The long generation of one run."""

    system: RunSystem
    shifted: str
    speech: LongSpeech
    truths: Sequence[Truth]
    reader: FaceReader
    config: EvalConfig
    extractors: Extractors

    def into(self, drift: Drift, quiet: bool) -> None:
        mouths = [truth.signals.mouth_open_T for truth in self.truths]
        known = [mouth for mouth in mouths if mouth is not None]
        true = known if len(known) == len(mouths) else None
        size = self.config.batch_size
        groups = [list(range(start, min(start + size, len(mouths)))) for start in range(0, len(mouths), size)]
        with tqdm(
            total=drift.frames * len(groups), desc=f"{self.system.row}, long", unit="frame", disable=quiet
        ) as bar:
            for batch in groups:
                stream = stream_frames(self.system, self.speech, batch, drift.frames, self.config.seed, bar.update)
                for end, window_BWHWC in windows_of(stream, drift.window, drift.ends):
                    for index, window_WHWC in zip(batch, window_BWHWC, strict=True):
                        self._measure(drift, end, index, window_WHWC, true)

    def _measure(
        self, drift: Drift, end: int, index: int, window_WHWC: np.ndarray, mouths: Sequence[np.ndarray] | None
    ) -> None:
        coded_WHWC = through(self.config.codec, window_WHWC)
        read, start = self.reader.read(coded_WHWC), end - drift.window
        true_T = None if mouths is None else self.speech.signal(mouths, index, start, end)
        truth = self.truths[index]
        against = WindowTruth(truth.frames_THWC[0], truth.reference_identity_D, true_T)
        video = Video(coded_WHWC, read)
        drift.add(self.system.row, end, index, window_pairs(video, against), drift.sets.of(video, self.extractors))
        if mouths is None or read is None or read.mouth_open_T is None:
            return
        later = [self.speech.signal(mouths, index, start + shift, end + shift) for shift in self.config.shifts]
        drift.add(self.shifted, end, index, {"lip_sync": sync.mean_correlation(read.mouth_open_T, later)})


@torch.no_grad()
def stream_frames(
    system: RunSystem, speech: LongSpeech, batch: Sequence[int], frames: int, seed: int, progress: Any
) -> Iterator[np.ndarray]:
    """Generate clips for as long as is asked: uint8 ``[B, P, H, W, 3]`` as they are decoded, in constant memory."""
    pipeline = system.pipeline
    _, reference, tokens, text = model_inputs(pipeline, [speech.clips[which] for which in batch], 1)
    audio = speech.pieces(pipeline, batch, frames)
    latents = stream_latents(
        pipeline.model, audio, reference, tokens, text, config=system.rollout, seed=seed, sample_ids=list(batch)
    )
    session = pipeline.video_vae.decoder_session()
    for chunk in latents:
        piece = decode_next(session, chunk.video)
        progress(piece.shape[1])
        yield piece


def add_drift_of_clip(
    drift: Drift,
    systems: Sequence[System],
    index: int,
    truth: Truth,
    videos: Mapping[str, Video],
    extractors: Extractors,
) -> None:
    """Measure the windows of a clip's own videos, as far as they go, in the rows that no run makes; of the still image
    everywhere.

    Args:
        videos: of the clip at the longest measured length, by row.
    """
    runs = {system.row for system in systems if isinstance(system, RunSystem)}
    for row, video in videos.items():
        if row in runs or kind_of(row) == SHIFTED:
            continue
        seen: dict[int, dict[str, np.ndarray]] = {}  # by the window's start: the still image has one for all times
        reach = drift.frames if row == STATIC else len(video.frames_THWC)
        for end in (end for end in drift.ends if end <= reach):
            start = 0 if row == STATIC else end - drift.window
            part = slice(start, start + drift.window)
            if len(video.frames_THWC[part]) < drift.window:
                continue
            window = Video(video.frames_THWC[part], video.readings and video.readings.part(part))
            if start not in seen:
                seen[start] = drift.sets.of(window, extractors)
            against = _known_of_clip(truth, end, drift.window)
            drift.add(row, end, index, window_pairs(window, against), seen[start])
        if row != STATIC:
            drift.missing[row] = f"windows end with the longest measured length, {len(truth.frames_THWC)} frames"


def _known_of_clip(truth: Truth, end: int, window: int) -> WindowTruth:
    """What a window of a clip's own video is measured against."""
    mouth_T = truth.signals.mouth_open_T
    known = mouth_T is not None and end <= len(mouth_T)
    true_T = mouth_T[end - window : end] if mouth_T is not None and known else None
    return WindowTruth(truth.frames_THWC[0], truth.reference_identity_D, true_T)


def window_pairs(video: Video, against: WindowTruth) -> dict[str, Pair]:
    """The metrics of one window."""
    count = len(video.frames_THWC)
    signals = FaceReadings(np.ones(count, bool), mouth_open_T=against.mouth_T)
    seen = Seen(video, Truth(video.frames_THWC, signals, against.identity_D))
    pairs = {
        name: SPECS[name].measure(seen)
        for name in READ
        if all(getattr(seen, need) is not None for need in SPECS[name].needs)
    }
    reference = sharpness(against.reference_HWC[None])
    return pairs | {SHARPNESS: Pair(float(video.sharpness_T.mean()), float(reference[0]))}
