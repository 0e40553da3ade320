"""Whether audio and lips belong together: how much likelier that makes what is seen and heard than that they do not.

The *statistic* at a lag is a weighted mean of correlations between lips and audio moved by it
(:mod:`df_data.stages.sync_tracks`). What it is worth depends on how much was seen. Over n seconds at a wrong lag, or
with another's speech, it is near 0, with the deviation ``noise / sqrt(n)``; at the right lag it is near a person's own
value, which is ``mean`` in the mean over people, with the deviation ``spread``. So at each lag

    L(lag) = N(statistic; mean, spread^2 + noise^2 / n) / N(statistic; 0, noise^2 / n)

is the likelihood that lips and audio belong together there, against that they do not at all. *In sync* is a lag within
the tolerated offset, the smaller the likelier (deviation 50 ms); *shifted* one beyond it, up to 2 s, every factor of
the offset equally likely; *another's* is 1. The **evidence** is the logarithm, to base 10, of the likelihood of in sync
against the mean of the other two. It grows with what was seen: of 2 s it can tell little, and says so.

By what a likelihood ratio is, audio that does not belong to the lips has an evidence above e by chance in 10^-e of all
cases at most where half of them are shifted and half another's (of one kind alone in twice as many), and audio that
does one below -e. That holds as far as the model does: see ``docs/results/stages.md``.

Stretches of one file have one offset, so they share what they know: their statistics are averaged by their seconds
(:class:`FileSync`). SyncNet, where it is given, goes the same way with a statistic of its own
(:mod:`df_data.stages.lip_sync`).

Shape legend: M steps of 20 ms, L = 201 lags from -2 to 2 s.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import Field

from df_data.stages.readings import Readings
from df_data.stages.rejection import Rejected
from df_data.stages.sync_tracks import STEP_S, SyncFit, at_moments, audio_tracks, lip_tracks, sync_fit
from df_models.settings import FrozenModel

MAX_LAG_S = 2.0
"""Offsets looked for; larger ones count as another's speech."""
LAGS = np.arange(-round(MAX_LAG_S / STEP_S), round(MAX_LAG_S / STEP_S) + 1)
MIN_FRAMES = 26
"""About one second: a shorter stretch has too few openings of the mouth."""
MIN_OVERLAP_S = 1.0
"""Lags at which less of lips and audio meet are not judged: as likely as not."""
USUAL_OFFSET_S = 0.05
"""Deviation of the offsets of files that count as in sync."""
AGAINST = -1.0
"""Evidence of a short stretch that speaks against its file: a tenth as likely as not. Of a long one any below 0."""


class SyncFilter(FrozenModel):
    """When audio and lips are apart; all evidence is a power of ten.

    Attributes:
        enabled: off, the lips' own measure (``mouth_sound_...``) does not exist.
        max_offset: beyond this offset in seconds audio is out of sync.
        min_evidence: least evidence for full weight; below it the weight is halved.
        refuse_evidence: with this evidence or less a clip is refused (``sound_offset``, ``other_speech``).
        refuse_seconds: nothing is refused by fewer seconds, of the stretch and of those of its file before it.
    """

    enabled: bool = True
    max_offset: float = Field(default=0.1, ge=0, lt=MAX_LAG_S)
    min_evidence: float = 1.3
    refuse_evidence: float = -2.0
    refuse_seconds: float = Field(default=5.0, ge=0)


@dataclass(frozen=True)
class LagCurve:
    """How well lips and audio go together at every lag.

    Attributes:
        statistic: float64 [L].
        seconds: how much of both met there, float64 [L].
        mean, spread, noise: what the statistic is worth (see the module).
    """

    statistic: np.ndarray
    seconds: np.ndarray
    mean: float
    spread: float
    noise: float

    def with_more(self, other: LagCurve) -> LagCurve:
        """Return what this curve and another of the same file and measure know together."""
        seconds = self.seconds + other.seconds
        added = self.statistic * self.seconds + other.statistic * other.seconds
        return LagCurve(added / np.maximum(seconds, 1e-9), seconds, self.mean, self.spread, self.noise)

    @property
    def length(self) -> float:
        """Seconds that were seen and heard."""
        return float(self.seconds.max())

    def log_likelihood(self) -> np.ndarray:
        """Return log L at every lag, natural, float64 ``[L]``."""
        by_chance = self.noise**2 / np.maximum(self.seconds, 1e-9)
        matched = self.spread**2 + by_chance
        log = 0.5 * (self.statistic**2 / by_chance - (self.statistic - self.mean) ** 2 / matched)
        return np.where(self.seconds >= MIN_OVERLAP_S, log + 0.5 * np.log(by_chance / matched), 0.0)


@dataclass(frozen=True)
class SyncVerdict:
    """What a curve says.

    Attributes:
        evidence: for in sync, a power of ten.
        offset: the likeliest, in seconds, positive when the audio is late.
        shifted: whether a shift explains it better than another's speech.
        seconds: that it rests on.
    """

    evidence: float
    offset: float
    shifted: bool
    seconds: float


def lag_curve(readings: Readings, wave_N: np.ndarray) -> LagCurve | None:
    """Compare the lips with the audio of the same frames at every lag.

    Returns:
        None where there is nothing to compare: lips or audio do not change at all, or last less than 26 frames.

    Args:
        readings: every frame finite.
    """
    if len(readings.mouth_open) < MIN_FRAMES:
        return None
    lips_MV = lip_tracks(readings)
    audio_MB = audio_tracks(wave_N, len(lips_MV))
    if not lips_MV.any() or not audio_MB.any():
        return None
    return curve_of(lips_MV, audio_MB, sync_fit())


def curve_of(lips_MV: np.ndarray, audio_MB: np.ndarray, fit: SyncFit) -> LagCurve:
    """Return the curve of tracks (:mod:`df_data.stages.sync_tracks`) by a fit."""
    lips_MK, audio_MK = at_moments(lips_MV) @ fit.lips, at_moments(audio_MB) @ fit.audio
    overlap = np.maximum(len(lips_MK) - np.abs(LAGS), 0)
    enough = overlap * STEP_S >= MIN_OVERLAP_S
    statistic = np.where(enough, lag_correlations(lips_MK, audio_MK) @ fit.weights, 0.0)
    seconds = np.where(enough, (overlap + 1) * STEP_S, 0.0)  # what was not compared is no evidence, however often
    return LagCurve(statistic, seconds, fit.mean, fit.spread, fit.noise)


def lag_correlations(lips_MK: np.ndarray, audio_MK: np.ndarray) -> np.ndarray:
    """Return Pearson's correlation of ``lips[i]`` and ``audio[i + lag]`` over what meets, float64 ``[L, K]``.

    The sums of products at all lags at once are a product of Fourier transforms; those of one track alone are
    differences of running sums.
    """
    steps, reach = len(lips_MK), int(LAGS[-1])
    size = 1 << (2 * (steps + reach)).bit_length()
    seen, heard = np.fft.rfft(lips_MK, size, axis=0), np.fft.rfft(audio_MK, size, axis=0)
    products = np.fft.irfft(np.conj(seen) * heard, size, axis=0)[LAGS]
    count = np.maximum(steps - np.abs(LAGS), 1)[:, None]
    moments = []
    for track, begin in ((lips_MK, np.maximum(-LAGS, 0)), (audio_MK, np.maximum(LAGS, 0))):
        first = np.minimum(begin, steps)
        last = np.minimum(begin + np.maximum(steps - np.abs(LAGS), 0), steps)
        sums = [np.concatenate([np.zeros((1, track.shape[1])), np.cumsum(x, axis=0)]) for x in (track, track**2)]
        moments.append([run[last] - run[first] for run in sums])
    (lips, lips2), (audio, audio2) = moments
    scale = np.maximum(lips2 - lips**2 / count, 0) * np.maximum(audio2 - audio**2 / count, 0)
    return (products - lips * audio / count) / np.maximum(np.sqrt(scale), 1e-12)


def verdict(curve: LagCurve, max_offset: float) -> SyncVerdict:
    """Weigh in sync against shifted and another's."""
    log = curve.log_likelihood()
    lags_s = LAGS * STEP_S
    inside = np.abs(lags_s) <= max_offset + 1e-9
    near = np.where(inside, np.exp(-0.5 * np.square(lags_s / USUAL_OFFSET_S)), 0.0)
    far = np.where(inside, 0.0, 1 / np.maximum(np.abs(lags_s), STEP_S))
    together, apart = _log_mean(log, near), _log_mean(log, far)
    against = np.logaddexp(apart, 0.0) - np.log(2)
    best = int((log + np.log(near / near.sum() + far / far.sum())).argmax())
    return SyncVerdict(float((together - against) / np.log(10)), float(lags_s[best]), bool(apart > 0), curve.length)


class FileSync:
    """What the stretches of one file know together of its offset, one after the other."""

    def __init__(self) -> None:
        self._known: dict[str, LagCurve] = {}

    def together(self, measure: str, curve: LagCurve) -> LagCurve:
        """Return what is known with a stretch's curve. Each measure (lips, SyncNet) counts for itself."""
        known = self._known.get(measure)
        return curve if known is None else known.with_more(curve)

    def add(self, measure: str, curve: LagCurve) -> None:
        """Take in a stretch's curve: of one in which somebody is heard and seen."""
        self._known[measure] = self.together(measure, curve)


def check_sync(own: SyncVerdict, known: SyncVerdict, filters: SyncFilter, scores: dict[str, float]) -> bool:
    """Refuse a stretch whose audio is surely not in sync; return whether that it is in sync is in doubt.

    Args:
        own: of the stretch alone.
        known: of it and the stretches of its file before it.

    Raises:
        Rejected: ``sound_offset``, ``other_speech``.
    """
    sure = own.evidence >= filters.min_evidence  # of itself: what was before it cannot refuse it
    for said in (own,) if sure else (own, known):
        if said.seconds >= filters.refuse_seconds and said.evidence <= filters.refuse_evidence:
            raise _refusal(said, scores)
    against = 0.0 if own.seconds >= filters.refuse_seconds else AGAINST
    return known.evidence < filters.min_evidence or own.evidence <= against


def _refusal(said: SyncVerdict, scores: dict[str, float]) -> Rejected:
    if said.shifted and said.offset:
        side = "late" if said.offset > 0 else "early"
        detail = f"the audio is {abs(said.offset) * 1000:.0f} ms {side} for the lips"
        return Rejected("sound_offset", detail, scores)
    return Rejected("other_speech", f"lips and audio go together nowhere within {MAX_LAG_S:.0f} s", scores)


def _log_mean(log_L: np.ndarray, weight_L: np.ndarray) -> float:
    """Return the logarithm of the weighted mean of exponentials."""
    top = float(log_L.max())
    return top + float(np.log((np.exp(log_L - top) * weight_L).sum() / weight_L.sum()))
