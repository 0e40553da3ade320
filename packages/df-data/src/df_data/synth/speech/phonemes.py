"""English-like phonemes: what each sounds like and what it does to the mouth.

Vowel formants are the male averages of Peterson & Barney, "Control methods used in a study of the vowels",
JASA 24 (1952). Consonant loci, bandwidths, frication spectra and inherent durations follow Klatt, "Software for a
cascade/parallel formant synthesizer", JASA 67 (1980), tables II-III, and Klatt, "Linguistic uses of segmental
duration in English", JASA 59 (1976), rounded. Mouth targets and dominances are in the manner of Cohen & Massaro,
"Modeling coarticulation in synthetic visual speech" (1993): a target is reached in proportion to its dominance
over its neighbours. The jaw target of a vowel grows with its first formant (Lindblom & Sundberg, JASA 50 (1971)).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["vowel", "glide", "nasal", "stop", "fricative", "affricate", "aspirate", "silence"]
_Three = tuple[float, float, float]
_Four = tuple[float, float, float, float]


@dataclass(frozen=True)
class Mouth:
    """Articulatory target. ``jaw`` 0 closed .. 1 wide open, negative where the lips press together (a virtual target
    behind the contact); ``width`` -1 narrow .. 1 spread; ``rounding`` 0 .. 1 protruded."""

    jaw: float
    width: float
    rounding: float


@dataclass(frozen=True)
class Phoneme:
    """One phoneme of the inventory.

    Attributes:
        symbol: ARPAbet symbol.
        kind: manner of articulation.
        voiced: whether the glottis vibrates.
        formants: F1..F4 in Hz for an adult male vocal tract (for a consonant: the locus).
        mouth: articulatory target.
        duration: inherent duration in seconds at a normal rate, stressed.
        voicing: amplitude of the voice source in dB re a vowel.
        frication: (centre Hz, bandwidth Hz, level dB) of the noise made at the constriction, or None.
        burst: seconds of release noise after the closure of a stop or affricate.
        aspiration: seconds of aspiration after the burst.
        dominance: (jaw, width, rounding, formants) weights against neighbours.
        end_formants, end_mouth: second target of a diphthong.
        frequency: relative frequency in running text.
    """

    symbol: str
    kind: Kind
    voiced: bool
    formants: _Four
    mouth: Mouth
    duration: float
    voicing: float = 0.0
    frication: _Three | None = None
    burst: float = 0.0
    aspiration: float = 0.0
    dominance: _Four = (1.0, 1.0, 1.0, 1.0)
    end_formants: _Four | None = None
    end_mouth: Mouth | None = None
    frequency: float = 1.0

    @property
    def closes_lips(self) -> bool:
        """True for the bilabial closures p, b, m."""
        return self.mouth.jaw < 0.0


def _vowel(
    symbol: str,
    formants: _Three,
    mouth: _Three,
    duration: float,
    frequency: float,
    end: tuple[_Three, _Three] | None = None,
) -> Phoneme:
    return Phoneme(
        symbol,
        "vowel",
        True,
        (*formants, 3500.0),
        Mouth(*mouth),
        duration,
        dominance=(3.2, 1.6, 1.6, 1.6),
        end_formants=(*end[0], 3500.0) if end else None,
        end_mouth=Mouth(*end[1]) if end else None,
        frequency=frequency,
    )


_VOWELS = (
    _vowel("IY", (270, 2290, 3010), (0.26, 0.85, 0.0), 0.130, 3.6),
    _vowel("IH", (390, 1990, 2550), (0.42, 0.45, 0.0), 0.105, 4.5),
    _vowel("EH", (530, 1840, 2480), (0.62, 0.40, 0.0), 0.125, 3.0),
    _vowel("AE", (660, 1720, 2410), (0.88, 0.45, 0.0), 0.160, 3.2),
    _vowel("AA", (730, 1090, 2440), (1.00, 0.00, 0.05), 0.160, 2.6),
    _vowel("AO", (570, 840, 2410), (0.68, -0.45, 0.60), 0.165, 2.0),
    _vowel("UH", (440, 1020, 2240), (0.38, -0.45, 0.55), 0.105, 1.2),
    _vowel("UW", (300, 870, 2240), (0.24, -0.85, 1.00), 0.140, 2.0),
    _vowel("AH", (640, 1190, 2390), (0.80, 0.05, 0.05), 0.115, 2.5),
    _vowel("ER", (490, 1350, 1690), (0.48, -0.30, 0.45), 0.140, 1.6),
    _vowel("AX", (500, 1450, 2450), (0.54, 0.05, 0.05), 0.070, 4.0),
    _vowel("EY", (500, 1900, 2500), (0.56, 0.45, 0.0), 0.165, 2.0, ((300, 2250, 2900), (0.22, 0.80, 0.0))),
    _vowel("AY", (730, 1200, 2440), (0.98, 0.10, 0.0), 0.190, 2.0, ((360, 2050, 2650), (0.32, 0.60, 0.0))),
    _vowel("OW", (540, 950, 2400), (0.60, -0.40, 0.55), 0.170, 1.8, ((320, 830, 2250), (0.24, -0.80, 0.95))),
    _vowel("AW", (720, 1250, 2440), (0.98, 0.10, 0.05), 0.195, 1.0, ((380, 920, 2250), (0.32, -0.65, 0.80))),
    _vowel("OY", (560, 860, 2400), (0.66, -0.50, 0.70), 0.200, 0.5, ((370, 2000, 2600), (0.32, 0.50, 0.0))),
)

# symbol: kind, locus of F1..F4, duration, voicing, (noise centre, width, level), (burst, aspiration)
_SOUNDS: dict[str, tuple[Kind, _Four, float, float, _Three | None, tuple[float, float]]] = {
    "W": ("glide", (290, 650, 2150, 3300), 0.070, -6, None, (0, 0)),
    "Y": ("glide", (270, 2250, 3000, 3600), 0.065, -6, None, (0, 0)),
    "L": ("glide", (350, 1100, 2700, 3400), 0.070, -6, None, (0, 0)),
    "R": ("glide", (320, 1150, 1500, 3200), 0.070, -6, None, (0, 0)),
    "M": ("nasal", (250, 1000, 2200, 3300), 0.080, -9, None, (0, 0)),
    "N": ("nasal", (270, 1600, 2600, 3400), 0.070, -9, None, (0, 0)),
    "NG": ("nasal", (270, 2000, 2700, 3300), 0.080, -9, None, (0, 0)),
    "P": ("stop", (250, 850, 2200, 3300), 0.090, -60, (900, 1200, -16), (0.012, 0.028)),
    "B": ("stop", (220, 850, 2200, 3300), 0.085, -20, (800, 1200, -18), (0.01, 0)),
    "T": ("stop", (250, 1700, 2650, 3500), 0.080, -60, (4300, 2200, -8), (0.016, 0.03)),
    "D": ("stop", (220, 1700, 2650, 3500), 0.070, -20, (4100, 2200, -12), (0.012, 0)),
    "K": ("stop", (260, 1900, 2400, 3400), 0.090, -60, (2000, 700, -8), (0.022, 0.035)),
    "G": ("stop", (230, 1900, 2400, 3400), 0.080, -20, (1900, 700, -12), (0.016, 0)),
    "F": ("fricative", (300, 1100, 2200, 3400), 0.095, -60, (6200, 6000, -20), (0, 0)),
    "V": ("fricative", (260, 1100, 2200, 3400), 0.075, -13, (6200, 6000, -26), (0, 0)),
    "TH": ("fricative", (320, 1350, 2550, 3500), 0.090, -60, (6800, 4500, -22), (0, 0)),
    "DH": ("fricative", (270, 1350, 2550, 3500), 0.055, -12, (6800, 4500, -28), (0, 0)),
    "S": ("fricative", (310, 1650, 2650, 3600), 0.105, -60, (5600, 1700, -5), (0, 0)),
    "Z": ("fricative", (260, 1650, 2650, 3600), 0.080, -14, (5500, 1700, -11), (0, 0)),
    "SH": ("fricative", (310, 1800, 2600, 3500), 0.105, -60, (2900, 1300, -6), (0, 0)),
    "ZH": ("fricative", (270, 1800, 2600, 3500), 0.080, -14, (2800, 1300, -12), (0, 0)),
    "HH": ("aspirate", (500, 1500, 2500, 3500), 0.065, -60, None, (0, 0)),
    "CH": ("affricate", (290, 1800, 2650, 3500), 0.120, -60, (3000, 1500, -6), (0.065, 0)),
    "JH": ("affricate", (250, 1800, 2650, 3500), 0.100, -20, (2900, 1500, -11), (0.05, 0)),
}  # fmt: skip

# symbol: (jaw, width, rounding), dominance of (jaw, width, rounding, formants), frequency
_MOUTHS: dict[str, tuple[_Three, _Four, float]] = {
    "W": ((0.10, -0.95, 1.00), (2, 3, 3, 2), 2),
    "Y": ((0.16, 0.70, 0.00), (1.5, 1, 1, 2), 0.9),
    "L": ((0.30, 0.10, 0.00), (1.2, 0.3, 0.4, 1.6), 3.8),
    "R": ((0.20, -0.40, 0.60), (1.6, 1.6, 1.8, 2), 3.4),
    "M": ((-0.45, 0.00, 0.10), (6, 0.6, 0.6, 2), 3),
    "N": ((0.17, 0.15, 0.00), (1.6, 0.3, 0.3, 1.6), 6),
    "NG": ((0.26, 0.10, 0.00), (1, 0.2, 0.2, 1.4), 1),
    "P": ((-0.45, 0.00, 0.10), (6, 0.6, 0.6, 2), 2.2),
    "B": ((-0.45, 0.00, 0.10), (6, 0.6, 0.6, 2), 2),
    "T": ((0.14, 0.15, 0.00), (1.8, 0.3, 0.3, 1.6), 5.5),
    "D": ((0.14, 0.15, 0.00), (1.8, 0.3, 0.3, 1.6), 3.8),
    "K": ((0.24, 0.05, 0.00), (1.2, 0.2, 0.2, 1.3), 3),
    "G": ((0.24, 0.05, 0.00), (1.2, 0.2, 0.2, 1.3), 1.4),
    "F": ((0.00, 0.15, 0.00), (5, 0.8, 0.8, 1.8), 2),
    "V": ((0.00, 0.15, 0.00), (5, 0.8, 0.8, 1.8), 2),
    "TH": ((0.16, 0.20, 0.00), (2, 0.5, 0.5, 1.6), 0.6),
    "DH": ((0.16, 0.20, 0.00), (1.8, 0.4, 0.4, 1.5), 3),
    "S": ((0.08, 0.35, 0.00), (2.5, 0.7, 0.7, 1.6), 4.5),
    "Z": ((0.08, 0.35, 0.00), (2.5, 0.7, 0.7, 1.6), 2.7),
    "SH": ((0.13, -0.35, 0.60), (2.2, 1.8, 2, 1.6), 1),
    "ZH": ((0.13, -0.35, 0.60), (2.2, 1.8, 2, 1.6), 0.2),
    "HH": ((0.45, 0.05, 0.05), (0.15, 0.1, 0.1, 0.1), 1.6),
    "CH": ((0.12, -0.30, 0.55), (2.2, 1.6, 1.8, 1.6), 0.7),
    "JH": ((0.12, -0.30, 0.55), (2.2, 1.6, 1.8, 1.6), 0.7),
}  # fmt: skip


def _consonant(symbol: str) -> Phoneme:
    kind, formants, duration, voicing, noise, (burst, aspiration) = _SOUNDS[symbol]
    mouth, dominance, frequency = _MOUTHS[symbol]
    return Phoneme(
        symbol,
        kind,
        voicing > -60,
        formants,
        Mouth(*mouth),
        duration,
        voicing,
        noise,
        burst,
        aspiration,
        dominance,
        frequency=frequency,
    )


SILENCE = Phoneme(
    "SIL", "silence", False, (500, 1500, 2500, 3500), Mouth(-0.12, 0.0, 0.0), 0.30, -60, dominance=(2.5, 0.8, 0.8, 0.2)
)

PHONEMES: dict[str, Phoneme] = {p.symbol: p for p in (*_VOWELS, *map(_consonant, _SOUNDS), SILENCE)}
VOWELS: tuple[str, ...] = tuple(p.symbol for p in _VOWELS)
CONSONANTS: tuple[str, ...] = tuple(_SOUNDS)
BILABIALS: frozenset[str] = frozenset(p.symbol for p in PHONEMES.values() if p.closes_lips and p.kind != "silence")
