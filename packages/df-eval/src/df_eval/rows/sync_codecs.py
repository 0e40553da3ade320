"""SyncNet's scores again behind codecs: how far a codec alone moves them.

Other systems' videos, and published numbers, are behind some codec, and the network sees its marks. So the scores of
the truth and of every system are measured again with the images through H.264 and H.265, and with the sound through AAC
and MP3. A difference of two systems that is smaller than the spread may be owed to their files.

Shape suffixes: T pixel frames, D features of SyncNet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from df_eval.clips import EvalClip
from df_eval.metrics import SPECS, Pair, Score
from df_eval.metrics.aggregate import pooled_score
from df_eval.metrics.syncnet import sync_scores
from df_eval.reading.real import RealFaceReader
from df_eval.rows.codec import SOUND, VIDEO, sound_through, through

AS_MEASURED, SPREAD = "as measured", "spread"
METRICS = ("sync_c", "sync_d", "sync_offset")
NOTE = (
    "SyncNet's scores with the images, or the sound, through a codec. The spread is the largest value less the "
    "smallest: what a codec alone does to a score."
)


@dataclass
class SyncCodecs:
    """Everything measured, by row, codec, metric and clip.

    Attributes:
        frames: pixel frames of the clips.
        people: of the clips; what intervals resample.
        missing: why nothing could be measured; empty if it could.
    """

    frames: int
    people: Sequence[str]
    pairs: dict[str, dict[str, dict[str, dict[int, Pair]]]] = field(default_factory=dict)
    missing: str = ""

    def add(self, row: str, codec: str, index: int, measured: Sequence[Pair]) -> None:
        """Add the scores of a clip, in the order of `METRICS`."""
        for name, pair in zip(METRICS, measured, strict=True):
            self.pairs.setdefault(row, {}).setdefault(codec, {}).setdefault(name, {})[index] = pair

    def scores(self, seed: int, resamples: int) -> dict[str, dict[str, dict[str, Score]]]:
        """By row, codec and metric, pooled over the clips with intervals; the last codec is the spread over all."""
        found: dict[str, dict[str, dict[str, Score]]] = {}
        for row, codecs in self.pairs.items():
            found[row] = {
                codec: {
                    name: pooled_score(pairs, self.people, seed, resamples, within=SPECS[name].within)
                    for name, pairs in metrics.items()
                }
                for codec, metrics in codecs.items()
            }
            found[row][SPREAD] = {name: _spread([scores[name] for scores in found[row].values()]) for name in METRICS}
        return found

    def to_json(self, seed: int, resamples: int) -> dict[str, Any]:
        """Plain JSON."""
        rows = {
            row: {codec: {name: score.to_json() for name, score in scores.items()} for codec, scores in codecs.items()}
            for row, codecs in self.scores(seed, resamples).items()
        }
        return {"frames": self.frames, "codecs": VIDEO | SOUND, "rows": rows, "missing": self.missing}


def _spread(scores: Sequence[Score]) -> Score:
    """The largest value less the smallest; none where one is missing, as fewer codecs spread less."""
    values = [score.value for score in scores if score.value is not None]
    if len(values) < len(scores):
        return Score.unavailable("undefined behind a codec")
    return Score(max(values) - min(values), n=scores[0].n, people=scores[0].people)


def heard_through(reader: RealFaceReader, clip: EvalClip) -> dict[str, np.ndarray]:
    """SyncNet's vectors [T, D] of a clip's sound, as it is and behind each codec of sound.

    Raises:
        ValueError: the reader has no SyncNet.
    """
    waves = {AS_MEASURED: clip.wave_N} | {codec: sound_through(codec, clip.wave_N) for codec in SOUND}
    return {codec: reader.hear(wave_N, clip.count) for codec, wave_N in waves.items()}


def add_codecs(
    into: SyncCodecs,
    row: str,
    index: int,
    frames_THWC: np.ndarray,
    seen_TD: np.ndarray,
    heard: Mapping[str, np.ndarray],
    reader: RealFaceReader,
) -> None:
    """Measure a clip's video in a row, as it is and behind every codec.

    Args:
        seen_TD: SyncNet's vectors of the frames, as the row was read.
        heard: those of the true sound (:func:`heard_through`).
    """
    length = len(frames_THWC)
    into.add(row, AS_MEASURED, index, sync_scores(seen_TD, heard[AS_MEASURED][:length]))
    for codec in VIDEO:
        read = reader.read(through(codec, frames_THWC))
        assert read is not None and read.seen_TD is not None
        into.add(row, codec, index, sync_scores(read.seen_TD, heard[AS_MEASURED][:length]))
    for codec in SOUND:
        into.add(row, codec, index, sync_scores(seen_TD, heard[codec][:length]))
