"""The voice of an identity."""

from __future__ import annotations

from dataclasses import dataclass

from df_data.synth.seeding import rng_for


@dataclass(frozen=True)
class Voice:
    """A speaker.

    Attributes:
        pitch: mean fundamental frequency in Hz.
        pitch_range: size of pitch movements, 1 average.
        tract: formants are multiplied by this (1 adult male, about 1.17 female, 1.3 child).
        breathiness: 0 clear .. 1 breathy.
        jitter: relative standard deviation of the period.
        tilt: source spectral tilt, 0 bright .. 1 dull.
        rate: speaking rate, 1 average.
        openness: how wide the mouth opens, 1 average.
    """

    pitch: float
    pitch_range: float
    tract: float
    breathiness: float
    jitter: float
    tilt: float
    rate: float
    openness: float


_KINDS = ((0.45, 85.0, 150.0, 0.95, 1.06), (0.45, 165.0, 245.0, 1.10, 1.20), (0.10, 240.0, 310.0, 1.22, 1.32))


def make_voice(identity: int) -> Voice:
    """The voice of identity number ``identity``: men, women and children, everything else continuous."""
    rng = rng_for("voice", identity)
    kind = int(rng.choice(3, p=[k[0] for k in _KINDS]))
    _, low, high, short, long = _KINDS[kind]
    height = float(rng.random())
    return Voice(
        pitch=low + (high - low) * height,
        pitch_range=float(rng.uniform(0.7, 1.3)),
        tract=short + (long - short) * min(1.0, max(0.0, 0.6 * height + 0.4 * float(rng.random()))),
        breathiness=float(rng.uniform(0.05, 0.55)),
        jitter=float(rng.uniform(0.004, 0.012)),
        tilt=float(rng.uniform(0.05, 0.45)),
        rate=float(rng.uniform(0.88, 1.12)),
        openness=float(rng.uniform(0.95, 1.05)),
    )
