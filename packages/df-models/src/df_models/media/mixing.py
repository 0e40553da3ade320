"""From any number of channels to one or two, by one rule for training and inference.

**Rule.** Mono stays, stereo is averaged. Surround is mixed by Recommendation ITU-R BS.775 (table 2): in one channel,
front left and right count 0.7071, the centre 1, every channel at the sides, behind and above 0.5, low-frequency effects
0; in two, each gets its own front with 1, the centre with 0.7071, its own side with 0.7071. The weights are divided by
their sum in the mono mix, so the same signal in every channel keeps its level, nothing leaves [-1, 1], and the mono mix
of the stereo mix is the mono mix. Channels without names all count alike, but for six or eight that are 5.1 or 7.1 by
their sound (:mod:`df_models.media.unnamed`: AAC of 5.1(side) as FFmpeg writes it, a WAV without a channel mask).

FFmpeg's own conversion (libswresample) keeps power instead of level: equal channels come out 3 dB louder as mono.

Shape legend: C channels, N samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

HALF_POWER = 0.5**0.5
FRONT = {"FL": "L", "FR": "R", "DL": "L", "DR": "R", "FLC": "L", "FRC": "R"}
"""Front channels by FFmpeg's names (libavutil/channel_layout.c), and the side that they are on."""
CENTRE = ("FC",)
BASS = ("LFE", "LFE2")
UNNAMED = ("NONE", "UNK", "UNSD")
USUAL = {
    6: ("FL", "FR", "FC", "LFE", "SL", "SR"),
    8: ("FL", "FR", "FC", "LFE", "BL", "BR", "SL", "SR"),
}
"""What so many channels are usually, in FFmpeg's order (libavutil, `av_channel_layout_default`)."""
ANTIPHASE_SHARE = 0.01
"""Channels cancel each other when their mix has less of their mean power than this, -20 dB; channels that have nothing
in common keep 1 / C of it."""


def mono_weights(names: Sequence[str]) -> np.ndarray:
    """Return each channel's weight in the mono mix, float64 ``[C]``, of sum 1."""
    if all(name in BASS or name in UNNAMED for name in names):
        return np.full(len(names), 1 / len(names))
    weights = np.array([_weight(name) for name in names])
    return weights / weights.sum()


def stereo_weights(names: Sequence[str]) -> np.ndarray:
    """Return the weights of the stereo mix, float64 ``[2, C]``; what is on neither side goes to both."""
    mono_C = mono_weights(names)
    left_C = np.array([{"L": 2.0, "R": 0.0}.get(_side(name), 1.0) for name in names])
    return np.stack([mono_C * left_C, mono_C * (2 - left_C)])


def _weight(name: str) -> float:
    if name in BASS:
        return 0.0
    return 1.0 if name in CENTRE else HALF_POWER if name in FRONT else 0.5


def _side(name: str) -> str:
    return FRONT.get(name) or {"L": "L", "R": "R"}.get(name[1:2] if len(name) == 2 else name[-1:], "")


def mix(samples_CN: np.ndarray, names: Sequence[str], wanted: int | None) -> np.ndarray:
    """Return float32 audio in ``wanted`` channels, None for as many as there are.

    Mono becomes stereo by being on both sides; where more than two are wanted of other than these, the stereo mix lies
    in the first two.
    """
    if wanted is None or wanted == len(samples_CN):
        return samples_CN
    weights = mono_weights(names)[None] if wanted == 1 else stereo_weights(names)
    mixed_CN = (weights @ samples_CN.astype(np.float64)).astype(np.float32)
    return np.pad(mixed_CN, ((0, wanted - len(mixed_CN)), (0, 0)))
