"""Why an expert stays at chance: what can be measured of its data without any expert.

All who trained such a network for the first time have lost days to data in which audio and lips lie a few frames apart,
to a handful of speakers, or to clips that hardly speak (Wav2Lip and LatentSync, issues on a loss that stays at 0.69).
So these facts are measured and told, the doubtful ones first.

Shape legend: N clips, P pixel frames, A = 2P audio features, D their width, K main components.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from df_data.format.sample import Sample
from df_train.sync.pairs import FARTHEST

_COMPONENTS = 16
"""Of the audio that the mouth's opening is read from: enough for the shape of a spectrum, few against 64 clips."""
_FEW_SPEAKERS = 20
"""Fewer people and the expert knows them by heart (a judgement: the synthetic corpus needs some hundreds)."""
_STILL = 0.02
"""A mouth whose height varies by less than 2 % of its width (standard deviation) does not speak."""
_SILENT = 0.05
"""Audio features whose spread in time is under 5 % of the dataset's."""
_READABLE = 0.02
"""Share of the mouth's variance that audio must explain somewhere to call an offset measured."""
_REACH = 15
"""Pixel frames that an offset is looked for within, more than the expert's negatives reach."""


@dataclass(frozen=True)
class Facts:
    """What was measured on some clips.

    Attributes:
        clips, speakers: their number, and that of the people in them.
        frames: pixel frames of the shortest and the longest clip.
        still, silent: share of the clips whose lips hardly move, whose audio hardly changes.
        offset: pixel frames by which audio must be moved to go with the lips; positive if it comes too late.
        explained: share of the mouth's opening that audio explains there, in clips it was not fitted to; and at 0.
    """

    clips: int
    speakers: int
    frames: tuple[int, int]
    still: float
    silent: float
    offset: int
    explained: float
    explained_at_0: float


def facts_of(samples: Sequence[Sample]) -> Facts:
    """Measure some clips as they are stored."""
    openings = [opening_of(sample) for sample in samples]
    sounds = [sample.tensors["audio"].float().numpy().reshape(len(o), -1) for sample, o in zip(samples, openings)]
    spreads = np.array([sound.std(axis=0).mean() for sound in sounds])
    whole = float(np.concatenate(sounds).std(axis=0).mean())
    explained = explained_by_shift(openings, main_components(sounds))
    best = max(explained, key=lambda shift: (explained[shift], -abs(shift)))
    lengths = [len(opening) for opening in openings]
    return Facts(
        clips=len(samples),
        speakers=len({sample.meta.identity for sample in samples}),
        frames=(min(lengths), max(lengths)),
        still=float(np.mean([opening.std() < _STILL for opening in openings])),
        silent=float(np.mean(spreads < _SILENT * whole)),
        offset=best,
        explained=explained[best],
        explained_at_0=explained[0],
    )


def opening_of(sample: Sample) -> np.ndarray:
    """The mouth box's height over the clip's mean width of it, `[P]`."""
    x0, y0, x1, y1 = sample.tensors["mouth_boxes"].float().numpy().T
    return (y1 - y0) / max(float((x1 - x0).mean()), 1e-6)


def main_components(sounds_PD: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The audio's main components `[P, K]`, of unit variance."""
    together = np.concatenate(sounds_PD)
    mean, std = together.mean(axis=0), together.std(axis=0) + 1e-6
    _, values, axes = np.linalg.svd((together - mean) / std, full_matrices=False)
    keep = axes[:_COMPONENTS].T * (np.sqrt(len(together)) / np.maximum(values[:_COMPONENTS], 1e-6))
    return [((sound - mean) / std) @ keep for sound in sounds_PD]


def explained_by_shift(openings: Sequence[np.ndarray], sounds_PK: Sequence[np.ndarray]) -> dict[int, float]:
    """Share of the openings' variance that a ridge regression on audio explains, by the audio's shift.

    It is fitted to every other clip and measured on the rest. A shift of s compares frame p with audio of frame p + s,
    in a middle part of the clips that all shifts share.
    """
    reach = max(0, min(_REACH, min(map(len, openings)) // 2 - 2))
    shares = {}
    for shift in range(-reach, reach + 1):
        pairs = [
            (opening[reach : len(opening) - reach], sound[reach + shift : len(opening) - reach + shift])
            for opening, sound in zip(openings, sounds_PK)
        ]
        shares[shift] = _explained(pairs)
    return shares


def _explained(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    centred = [(y - y.mean(), x - x.mean(axis=0)) for y, x in pairs]  # people's mouths differ at rest
    (y_fit, x_fit), (y_new, x_new) = (
        (np.concatenate([y for y, _ in part]), np.concatenate([x for _, x in part]))
        for part in (centred[::2], centred[1::2] or centred)
    )
    ridge = 1e-2 * len(x_fit) * np.eye(x_fit.shape[1])
    weights = np.linalg.solve(x_fit.T @ x_fit + ridge, x_fit.T @ y_fit)
    whole = float(np.square(y_new).sum())
    return 1.0 - float(np.square(y_new - x_new @ weights).sum()) / whole if whole > 1e-9 else 0.0  # 0: a still mouth


def paragraph(facts: Facts, window: int, speech_level: float | None) -> str:
    """One paragraph: what is doubtful first, then all that was measured."""
    level = "not recorded" if speech_level is None else f"{speech_level:.0f} dB of full scale"
    told = (
        f"Measured on {facts.clips} training clips: {facts.speakers} speakers; clips of {facts.frames[0]} to "
        f"{facts.frames[1]} pixel frames against a window of {4 * window}; audio explains "
        f"{100 * max(facts.explained_at_0, 0.0):.0f} % of the mouth's opening as it lies, and most, "
        f"{100 * max(facts.explained, 0.0):.0f} %, moved by {facts.offset:+d} frames; lips still in "
        f"{100 * facts.still:.0f} %, audio unchanging in {100 * facts.silent:.0f} % of the clips; level of "
        f"speech {level}."
    )
    doubts = doubts_of(facts, window, speech_level)
    if not doubts:
        doubts = ["nothing of what is measured here is out of order: train longer, or try another optim.lr"]
    return f"Most likely: {'; '.join(doubts)}. {told}"


def doubts_of(facts: Facts, window: int, speech_level: float | None) -> list[str]:
    """What may keep an expert from learning, the surest first."""
    doubts = []
    if facts.explained < _READABLE:
        doubts.append(
            "audio explains nothing of the mouth's opening at any shift: the clips do not speak, the audio is another "
            "one, or the mouth boxes are wrong"
        )
    elif abs(facts.offset) >= 2 and facts.explained > 1.2 * max(facts.explained_at_0, 0.0):
        late = "late" if facts.offset > 0 else "early"
        doubts.append(f"audio comes {abs(facts.offset)} pixel frames ({40 * abs(facts.offset)} ms) {late}: move it")
    if facts.still > 0.3:
        doubts.append(f"lips are still in {100 * facts.still:.0f} % of the clips: leave those out")
    if facts.silent > 0.3:
        doubts.append(f"audio does not change in {100 * facts.silent:.0f} % of the clips: leave those out")
    if facts.speakers < _FEW_SPEAKERS:
        doubts.append(f"{facts.speakers} speakers are few: the expert learns to know them instead; add people")
    if facts.frames[0] < 4 * window + 1 + FARTHEST:
        doubts.append(f"clips of {facts.frames[0]} pixel frames leave few shifts to a window of {4 * window}")
    if speech_level is not None and speech_level < -40:
        doubts.append(f"speech is very faint ({speech_level:.0f} dB)")
    return doubts
