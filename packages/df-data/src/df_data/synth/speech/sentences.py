"""Random sentences of pseudo-words, timed phoneme by phoneme.

The lexicon is fixed. Each word belongs to the training or the validation split by a hash of its phonemes, so no
sentence, and no word, of one split occurs in the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from df_data.synth.seeding import derive_seed, rng_for
from df_data.synth.speech.phonemes import CONSONANTS, PHONEMES, VOWELS, Phoneme

Split = Literal["train", "val"]
SPLITS: tuple[Split, ...] = ("train", "val")

_LEXICON_SIZE = 3000
_FUNCTION_WORDS = 240
_CLUSTERS = (
    ("P", "L"), ("P", "R"), ("B", "L"), ("B", "R"), ("T", "R"), ("D", "R"), ("K", "L"), ("K", "R"), ("K", "W"),
    ("G", "R"), ("F", "L"), ("F", "R"), ("S", "P"), ("S", "T"), ("S", "K"), ("S", "M"), ("S", "W"), ("S", "L"),
)  # fmt: skip
_CODA_CLUSTERS = (
    ("N", "T"), ("N", "D"), ("S", "T"), ("M", "P"), ("L", "D"), ("K", "S"), ("N", "Z"), ("L", "F"), ("P", "S"),
)  # fmt: skip
_ONSETS = tuple(c for c in CONSONANTS if c not in ("NG", "ZH"))
_CODAS = tuple(c for c in CONSONANTS if c not in ("HH", "W", "Y"))
_FULL_VOWELS = tuple(v for v in VOWELS if v != "AX")
_REDUCED = ("AX", "IH", "ER", "AX", "AH", "IY")


@dataclass(frozen=True)
class Word:
    """Syllables as tuples of phoneme symbols; ``stress``: index of the stressed syllable, -1 in function words."""

    syllables: tuple[tuple[str, ...], ...]
    stress: int

    @property
    def text(self) -> str:
        """The phonemes, syllables separated by dots, as in ``B-AE.T-AX``."""
        return ".".join("-".join(s) for s in self.syllables)

    @property
    def split(self) -> Split:
        return "val" if derive_seed("word split", self.text.replace(".", "-")) % 5 == 0 else "train"


@dataclass(frozen=True)
class Phone:
    """A timed phoneme. ``stress``: 0 unstressed, 1 stressed, 2 carries the accent of its phrase. Seconds."""

    symbol: str
    start: float
    end: float
    stress: int

    @property
    def phoneme(self) -> Phoneme:
        return PHONEMES[self.symbol]


@dataclass(frozen=True)
class Sentence:
    """A sentence: its words, the pause before each (s, 0: none), which carry an accent, whether it is a question."""

    words: tuple[Word, ...]
    pauses: tuple[float, ...]
    accents: tuple[bool, ...]
    question: bool

    @property
    def text(self) -> str:
        return " ".join(w.text for w in self.words)


def _weighted(rng: np.random.Generator, symbols: tuple[str, ...]) -> str:
    weights = np.array([PHONEMES[s].frequency for s in symbols])
    return symbols[int(rng.choice(len(symbols), p=weights / weights.sum()))]


def _syllable(rng: np.random.Generator, stressed: bool, first: bool) -> tuple[str, ...]:
    u = rng.random(3)
    onset: tuple[str, ...] = ()
    if u[0] < 0.16:
        onset = _CLUSTERS[int(rng.integers(len(_CLUSTERS)))]
    elif u[0] < (0.86 if first else 0.97):
        onset = (_weighted(rng, _ONSETS),)
    nucleus = _weighted(rng, _FULL_VOWELS) if stressed else _REDUCED[int(rng.integers(len(_REDUCED)))]
    coda: tuple[str, ...] = ()
    if u[2] < 0.06:
        coda = _CODA_CLUSTERS[int(rng.integers(len(_CODA_CLUSTERS)))]
    elif u[2] < 0.46:
        coda = (_weighted(rng, _CODAS),)
    return (*onset, nucleus, *coda)


def _content_word(rng: np.random.Generator) -> Word:
    count = int(rng.choice([1, 2, 3], p=[0.42, 0.40, 0.18]))
    stress = 0 if count < 3 and rng.random() < 0.8 else int(rng.integers(count))
    return Word(tuple(_syllable(rng, i == stress, i == 0) for i in range(count)), stress)


def _function_word(rng: np.random.Generator) -> Word:
    onset = (_weighted(rng, _ONSETS),) if rng.random() < 0.75 else ()
    coda = (_weighted(rng, _CODAS),) if not onset or rng.random() < 0.35 else ()
    return Word(((*onset, _REDUCED[int(rng.integers(len(_REDUCED)))], *coda),), -1)


@lru_cache(maxsize=4)
def lexicon(split: Split) -> tuple[tuple[Word, ...], tuple[Word, ...]]:
    """(content words, function words) of one split; equal in every process."""
    rng = rng_for("lexicon")
    content = {w.text: w for w in (_content_word(rng) for _ in range(_LEXICON_SIZE))}
    function = {w.text: w for w in (_function_word(rng) for _ in range(_FUNCTION_WORDS))}
    pick = tuple(tuple(w for w in group.values() if w.split == split) for group in (content, function))
    return pick[0], pick[1]


def make_sentence(seed: int, split: Split) -> Sentence:
    """A sentence of 3 to 12 words out of the split's lexicon, alternating function and content words.

    Raises:
        ValueError: the split is neither "train" nor "val".
    """
    if split not in SPLITS:
        raise ValueError(f"split must be 'train' or 'val', not {split!r}")
    rng = rng_for("sentence", split, seed)
    content, function = lexicon(split)
    words: list[Word] = []
    pauses: list[float] = []
    for i in range(int(rng.integers(3, 7))):
        pause = float(rng.uniform(0.14, 0.32)) if i > 1 and rng.random() < 0.16 else 0.0
        if rng.random() < 0.5:
            words.append(function[int(rng.integers(len(function)))])
            pauses.append(pause)
            pause = 0.0
        words.append(content[int(rng.integers(len(content)))])
        pauses.append(pause)
    accents = [w.stress >= 0 and rng.random() < 0.4 for w in words]
    accents[-1] = True
    return Sentence(tuple(words), tuple(pauses), tuple(accents), bool(rng.random() < 0.18))


_VOWEL_STRETCH = (0.80, 1.05, 1.22)
_CONSONANT_STRETCH = (0.85, 1.0, 1.08)


def time_sentence(sentence: Sentence, start: float, rate: float, rng: np.random.Generator) -> list[Phone]:
    """Phones of the sentence spoken from ``start`` on (s): inherent durations times stress, position and rate.

    Phrase-final syllables are lengthened (Klatt 1976); ``rate`` above 1 is faster.
    """
    phones: list[Phone] = []
    clock = start
    for w, word in enumerate(sentence.words):
        if sentence.pauses[w]:
            phones.append(Phone("SIL", clock, clock + sentence.pauses[w], 0))
            clock += sentence.pauses[w]
        phrase_end = w + 1 == len(sentence.words) or sentence.pauses[w + 1] > 0
        for s, syllable in enumerate(word.syllables):
            stress = (2 if sentence.accents[w] else 1) if s == word.stress else 0
            last = phrase_end and s + 1 == len(word.syllables)
            for symbol in syllable:
                phoneme = PHONEMES[symbol]
                stretch = (_VOWEL_STRETCH if phoneme.kind == "vowel" else _CONSONANT_STRETCH)[stress]
                stretch *= (1.35 if phoneme.kind == "vowel" else 1.15) if last else 1.0
                duration = phoneme.duration * stretch * float(rng.uniform(0.92, 1.10)) / rate
                phones.append(Phone(symbol, clock, clock + duration, stress))
                clock += duration
    return phones
