"""Timed phonemes to smooth mouth movement, by dominance functions (Cohen & Massaro 1993).

Legend: N phonetic targets, P parameters, G points of the 200 Hz control grid, T pixel frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from df_data.synth.speech.sentences import Phone

CONTROL_RATE = 200
"""Hz: 5 ms, below the shortest phonetic event (a burst)."""
_REACH = 0.45
_STRESS_JAW = (0.95, 1.0, 1.08)
_JAW_RATE = 30.0
_LIP_RATE = 18.0
_FORMANT_RATE = 34.0


@dataclass(frozen=True)
class Targets:
    """Targets in time: ``start``, ``end`` [N] s, ``values`` and ``weights`` [N, P], decay ``rates`` [P] in 1/s."""

    start: np.ndarray
    end: np.ndarray
    values: np.ndarray
    weights: np.ndarray
    rates: np.ndarray


@dataclass(frozen=True)
class MouthTracks:
    """Articulators on any grid: ``jaw`` 0..1 (0: lips closed), ``width`` -1..1, ``rounding`` 0..1, float32."""

    jaw: np.ndarray
    width: np.ndarray
    rounding: np.ndarray

    def every(self, step: int) -> MouthTracks:
        """Every ``step``-th point."""
        return MouthTracks(self.jaw[::step].copy(), self.width[::step].copy(), self.rounding[::step].copy())


@numba.njit(cache=True)
def _blend(
    start: np.ndarray,
    end: np.ndarray,
    values: np.ndarray,
    weights: np.ndarray,
    rates: np.ndarray,
    t0: float,
    step: float,
    count: int,
    reach: float,
) -> np.ndarray:
    targets, params = values.shape
    total = np.full((count, params), 1e-9)
    out = np.empty((count, params))
    for p in range(params):
        for g in range(count):
            out[g, p] = 0.0
    for n in range(targets):
        first = max(0, int((start[n] - reach - t0) / step))
        last = min(count, int((end[n] + reach - t0) / step) + 1)
        for g in range(first, last):
            t = t0 + g * step
            away = max(0.0, max(start[n] - t, t - end[n]))
            if away > reach:
                continue
            for p in range(params):
                d = weights[n, p] * np.exp(-rates[p] * away)
                total[g, p] += d
                out[g, p] += d * values[n, p]
    for p in range(params):
        for g in range(count):
            out[g, p] /= total[g, p]
    return out


def blend(targets: Targets, t0: float, count: int) -> np.ndarray:
    """Weighted mean of the targets, [G, P], from ``t0`` (s) in steps of 5 ms; a target is held between its start and
    end and decays exponentially outside."""
    return _blend(
        targets.start,
        targets.end,
        targets.values,
        targets.weights,
        targets.rates,
        t0,
        1.0 / CONTROL_RATE,
        count,
        _REACH,
    )


def smooth(x: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian low-pass along the first axis of a control-grid array; ``sigma`` in seconds; edges are held."""
    width = sigma * CONTROL_RATE
    half = max(1, int(np.ceil(3.0 * width)))
    kernel = np.exp(-0.5 * (np.arange(-half, half + 1) / width) ** 2)
    kernel /= kernel.sum()
    columns = x.reshape(len(x), -1)
    padded = np.pad(columns, ((half, half), (0, 0)), mode="edge")
    out = np.stack([np.convolve(padded[:, c], kernel, mode="valid") for c in range(padded.shape[1])], axis=1)
    return out.reshape(x.shape)


def _core(start: float, end: float, kind: str) -> tuple[float, float]:
    """The stretch of a segment where its target is held; silences and vowels leave room for movement."""
    length = end - start
    if kind == "silence":
        margin = min(0.09, 0.3 * length)
        return start + margin, end - min(0.10, 0.35 * length)
    share = 0.15 if kind == "vowel" else 0.25
    return start + share * length, end - share * length


def _pieces(phone: Phone) -> list[tuple[float, float, int]]:
    """(start, end, which target) of a phone: diphthongs have two."""
    if phone.phoneme.end_mouth is None:
        return [(*_core(phone.start, phone.end, phone.phoneme.kind), 0)]
    length = phone.end - phone.start
    return [
        (phone.start + 0.20 * length, phone.start + 0.45 * length, 0),
        (phone.start + 0.75 * length, phone.start + 0.90 * length, 1),
    ]


def mouth_targets(phones: list[Phone]) -> Targets:
    """Jaw, width, rounding targets; stressed vowels open wider."""
    start, end, values, weights = [], [], [], []
    for phone in phones:
        phoneme = phone.phoneme
        gain = _STRESS_JAW[phone.stress] if phoneme.kind == "vowel" else 1.0
        for first, last, which in _pieces(phone):
            mouth = phoneme.end_mouth if which and phoneme.end_mouth is not None else phoneme.mouth
            start.append(first)
            end.append(last)
            values.append((mouth.jaw * gain, mouth.width, mouth.rounding))
            weights.append(phoneme.dominance[:3])
    rates = np.array([_JAW_RATE, _LIP_RATE, _LIP_RATE])
    return Targets(np.array(start), np.array(end), np.array(values), np.array(weights, dtype=np.float64), rates)


def formant_targets(phones: list[Phone]) -> Targets:
    """F1..F4 targets in Hz of the reference (adult male) vocal tract; unstressed vowels fall short of theirs."""
    start, end, values, weights = [], [], [], []
    neutral = np.array([500.0, 1500.0, 2500.0, 3500.0])
    for phone in phones:
        phoneme = phone.phoneme
        reach = (0.82, 1.0, 1.08)[phone.stress] if phoneme.kind == "vowel" else 1.0
        for first, last, which in _pieces(phone):
            formants = phoneme.end_formants if which and phoneme.end_formants is not None else phoneme.formants
            start.append(first)
            end.append(last)
            values.append(neutral + reach * (np.array(formants) - neutral))
            weights.append((phoneme.dominance[3],) * 4)
    rates = np.full(4, _FORMANT_RATE)
    return Targets(np.array(start), np.array(end), np.array(values), np.array(weights, dtype=np.float64), rates)


def articulate(phones: list[Phone], t0: float, count: int, openness: float = 1.0) -> MouthTracks:
    """Mouth tracks on the control grid, ``count`` points from ``t0`` (s).

    Args:
        openness: the speaker's habit; multiplies the opening (1 is the average, a few percent either way).
    """
    raw = smooth(blend(mouth_targets(phones), t0, count), 0.014)
    jaw = np.clip(raw[:, 0] * openness, 0.0, 1.0)
    width = np.clip(raw[:, 1], -1.0, 1.0)
    rounding = np.clip(raw[:, 2], 0.0, 1.0)
    return MouthTracks(jaw.astype(np.float32), width.astype(np.float32), rounding.astype(np.float32))
