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
    formants: tuple[float, float, float, float]
    mouth: Mouth
    duration: float
    voicing: float = 0.0
    frication: tuple[float, float, float] | None = None
    burst: float = 0.0
    aspiration: float = 0.0
    dominance: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    end_formants: tuple[float, float, float, float] | None = None
    end_mouth: Mouth | None = None
    frequency: float = 1.0

    @property
    def closes_lips(self) -> bool:
        """True for the bilabial closures p, b, m."""
        return self.mouth.jaw < 0.0


def _vowel(
    symbol: str,
    formants: tuple[float, float, float],
    mouth: tuple[float, float, float],
    duration: float,
    frequency: float,
    end: tuple[tuple[float, float, float], tuple[float, float, float]] | None = None,
) -> Phoneme:
    return Phoneme(
        symbol,
        "vowel",
        True,
        (*formants, 3500.0),
        Mouth(*mouth),
        duration,
        dominance=(2.6, 1.6, 1.6, 1.6),
        end_formants=(*end[0], 3500.0) if end else None,
        end_mouth=Mouth(*end[1]) if end else None,
        frequency=frequency,
    )


_VOWELS = (
    _vowel("IY", (270, 2290, 3010), (0.18, 0.85, 0.0), 0.130, 3.6),
    _vowel("IH", (390, 1990, 2550), (0.36, 0.45, 0.0), 0.105, 4.5),
    _vowel("EH", (530, 1840, 2480), (0.62, 0.40, 0.0), 0.125, 3.0),
    _vowel("AE", (660, 1720, 2410), (0.88, 0.45, 0.0), 0.160, 3.2),
    _vowel("AA", (730, 1090, 2440), (1.00, 0.00, 0.05), 0.160, 2.6),
    _vowel("AO", (570, 840, 2410), (0.68, -0.45, 0.60), 0.165, 2.0),
    _vowel("UH", (440, 1020, 2240), (0.38, -0.45, 0.55), 0.105, 1.2),
    _vowel("UW", (300, 870, 2240), (0.20, -0.85, 1.00), 0.140, 2.0),
    _vowel("AH", (640, 1190, 2390), (0.80, 0.05, 0.05), 0.115, 2.5),
    _vowel("ER", (490, 1350, 1690), (0.48, -0.30, 0.45), 0.140, 1.6),
    _vowel("AX", (500, 1450, 2450), (0.50, 0.05, 0.05), 0.070, 4.0),
    _vowel("EY", (500, 1900, 2500), (0.56, 0.45, 0.0), 0.165, 2.0, ((300, 2250, 2900), (0.22, 0.80, 0.0))),
    _vowel("AY", (730, 1200, 2440), (0.98, 0.10, 0.0), 0.190, 2.0, ((360, 2050, 2650), (0.32, 0.60, 0.0))),
    _vowel("OW", (540, 950, 2400), (0.60, -0.40, 0.55), 0.170, 1.8, ((320, 830, 2250), (0.24, -0.80, 0.95))),
    _vowel("AW", (720, 1250, 2440), (0.98, 0.10, 0.05), 0.195, 1.0, ((380, 920, 2250), (0.32, -0.65, 0.80))),
    _vowel("OY", (560, 860, 2400), (0.66, -0.50, 0.70), 0.200, 0.5, ((370, 2000, 2600), (0.32, 0.50, 0.0))),
)

_GLIDES = (
    Phoneme("W", "glide", True, (290, 650, 2150, 3300), Mouth(0.10, -0.95, 1.0), 0.070, -6, None, 0, 0, (2.0, 3.0, 3.0, 2.0), frequency=2.0),
    Phoneme("Y", "glide", True, (270, 2250, 3000, 3600), Mouth(0.16, 0.70, 0.0), 0.065, -6, None, 0, 0, (1.5, 1.0, 1.0, 2.0), frequency=0.9),
    Phoneme("L", "glide", True, (350, 1100, 2700, 3400), Mouth(0.30, 0.10, 0.0), 0.070, -6, None, 0, 0, (1.2, 0.3, 0.4, 1.6), frequency=3.8),
    Phoneme("R", "glide", True, (320, 1150, 1500, 3200), Mouth(0.20, -0.40, 0.60), 0.070, -6, None, 0, 0, (1.6, 1.6, 1.8, 2.0), frequency=3.4),
)  # fmt: skip

_NASALS = (
    Phoneme("M", "nasal", True, (250, 1000, 2200, 3300), Mouth(-0.45, 0.0, 0.10), 0.080, -9, None, 0, 0, (6.0, 0.6, 0.6, 2.0), frequency=3.0),
    Phoneme("N", "nasal", True, (270, 1600, 2600, 3400), Mouth(0.17, 0.15, 0.0), 0.070, -9, None, 0, 0, (1.6, 0.3, 0.3, 1.6), frequency=6.0),
    Phoneme("NG", "nasal", True, (270, 2000, 2700, 3300), Mouth(0.26, 0.10, 0.0), 0.080, -9, None, 0, 0, (1.0, 0.2, 0.2, 1.4), frequency=1.0),
)  # fmt: skip

_STOPS = (
    Phoneme("P", "stop", False, (250, 850, 2200, 3300), Mouth(-0.45, 0.0, 0.10), 0.090, -60, (900, 1200, -16), 0.012, 0.028, (6.0, 0.6, 0.6, 2.0), frequency=2.2),
    Phoneme("B", "stop", True, (220, 850, 2200, 3300), Mouth(-0.45, 0.0, 0.10), 0.085, -20, (800, 1200, -18), 0.010, 0.0, (6.0, 0.6, 0.6, 2.0), frequency=2.0),
    Phoneme("T", "stop", False, (250, 1700, 2650, 3500), Mouth(0.14, 0.15, 0.0), 0.080, -60, (4300, 2200, -8), 0.016, 0.030, (1.8, 0.3, 0.3, 1.6), frequency=5.5),
    Phoneme("D", "stop", True, (220, 1700, 2650, 3500), Mouth(0.14, 0.15, 0.0), 0.070, -20, (4100, 2200, -12), 0.012, 0.0, (1.8, 0.3, 0.3, 1.6), frequency=3.8),
    Phoneme("K", "stop", False, (260, 1900, 2400, 3400), Mouth(0.24, 0.05, 0.0), 0.090, -60, (2000, 700, -8), 0.022, 0.035, (1.2, 0.2, 0.2, 1.3), frequency=3.0),
    Phoneme("G", "stop", True, (230, 1900, 2400, 3400), Mouth(0.24, 0.05, 0.0), 0.080, -20, (1900, 700, -12), 0.016, 0.0, (1.2, 0.2, 0.2, 1.3), frequency=1.4),
)  # fmt: skip

_FRICATIVES = (
    Phoneme("F", "fricative", False, (300, 1100, 2200, 3400), Mouth(0.02, 0.15, 0.0), 0.095, -60, (6200, 6000, -20), 0, 0, (3.5, 0.8, 0.8, 1.8), frequency=2.0),
    Phoneme("V", "fricative", True, (260, 1100, 2200, 3400), Mouth(0.02, 0.15, 0.0), 0.070, -13, (6200, 6000, -26), 0, 0, (3.5, 0.8, 0.8, 1.8), frequency=2.0),
    Phoneme("TH", "fricative", False, (320, 1350, 2550, 3500), Mouth(0.16, 0.20, 0.0), 0.090, -60, (6800, 4500, -22), 0, 0, (2.0, 0.5, 0.5, 1.6), frequency=0.6),
    Phoneme("DH", "fricative", True, (270, 1350, 2550, 3500), Mouth(0.16, 0.20, 0.0), 0.055, -12, (6800, 4500, -28), 0, 0, (1.8, 0.4, 0.4, 1.5), frequency=3.0),
    Phoneme("S", "fricative", False, (310, 1650, 2650, 3600), Mouth(0.08, 0.35, 0.0), 0.105, -60, (5600, 1700, -5), 0, 0, (2.5, 0.7, 0.7, 1.6), frequency=4.5),
    Phoneme("Z", "fricative", True, (260, 1650, 2650, 3600), Mouth(0.08, 0.35, 0.0), 0.080, -14, (5500, 1700, -11), 0, 0, (2.5, 0.7, 0.7, 1.6), frequency=2.7),
    Phoneme("SH", "fricative", False, (310, 1800, 2600, 3500), Mouth(0.13, -0.35, 0.60), 0.105, -60, (2900, 1300, -6), 0, 0, (2.2, 1.8, 2.0, 1.6), frequency=1.0),
    Phoneme("ZH", "fricative", True, (270, 1800, 2600, 3500), Mouth(0.13, -0.35, 0.60), 0.080, -14, (2800, 1300, -12), 0, 0, (2.2, 1.8, 2.0, 1.6), frequency=0.2),
    Phoneme("HH", "aspirate", False, (500, 1500, 2500, 3500), Mouth(0.45, 0.05, 0.05), 0.065, -60, None, 0, 0, (0.15, 0.1, 0.1, 0.1), frequency=1.6),
    Phoneme("CH", "affricate", False, (290, 1800, 2650, 3500), Mouth(0.12, -0.30, 0.55), 0.120, -60, (3000, 1500, -6), 0.065, 0, (2.2, 1.6, 1.8, 1.6), frequency=0.7),
    Phoneme("JH", "affricate", True, (250, 1800, 2650, 3500), Mouth(0.12, -0.30, 0.55), 0.100, -20, (2900, 1500, -11), 0.050, 0, (2.2, 1.6, 1.8, 1.6), frequency=0.7),
)  # fmt: skip

SILENCE = Phoneme("SIL", "silence", False, (500, 1500, 2500, 3500), Mouth(-0.12, 0.0, 0.0), 0.30, -60, dominance=(2.5, 0.8, 0.8, 0.2))

PHONEMES: dict[str, Phoneme] = {p.symbol: p for p in (*_VOWELS, *_GLIDES, *_NASALS, *_STOPS, *_FRICATIVES, SILENCE)}
VOWELS: tuple[str, ...] = tuple(p.symbol for p in _VOWELS)
CONSONANTS: tuple[str, ...] = tuple(p.symbol for p in (*_GLIDES, *_NASALS, *_STOPS, *_FRICATIVES))
BILABIALS: frozenset[str] = frozenset(p.symbol for p in PHONEMES.values() if p.closes_lips and p.kind != "silence")
