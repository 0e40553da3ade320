"""Continuing speech: sentences one after another, their audio and the movement that makes it.

Legend: G points of the 200 Hz control grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from df_data.synth.seeding import derive_seed, rng_for
from df_data.synth.speech.articulation import (
    CONTROL_RATE,
    MouthTracks,
    articulate,
    blend,
    formant_targets,
    smooth,
)
from df_data.synth.speech.klatt import CONTROL_STEP, SAMPLE_RATE, Controls, synthesise
from df_data.synth.speech.phonemes import SILENCE
from df_data.synth.speech.sentences import Phone, Sentence, Split, make_sentence, time_sentence
from df_data.synth.speech.voice import Voice

_WARM_UP = 0.2
"""Seconds that the synthesiser runs before the clip, so that its filters have settled."""
_STRESS_DB = (-3.5, 0.0, 1.5)
_NASAL_POLE = 270.0
_LEVEL = 0.16
"""Of the raw wave, so that speech stays below full scale."""
_LIP_LENGTHENING = 0.12
_RADIATION_DB = 11.0


@dataclass(frozen=True)
class Utterance:
    """A sentence as spoken: its seed, text and phones (the pause after it included), times in s of the stream."""

    seed: int
    sentence: Sentence
    phones: tuple[Phone, ...]

    @property
    def speech_start(self) -> float:
        """Start of the speech, after an opening pause."""
        return next(p.start for p in self.phones if p.symbol != SILENCE.symbol)

    @property
    def end(self) -> float:
        """End of the speech, before the closing pause."""
        return self.phones[-1].start


@dataclass(frozen=True)
class Speech:
    """Sound and movement of a stretch of speech that begins at time 0.

    Attributes:
        wave: float32 [N], 16 kHz, within (-1, 1).
        mouth: articulators on the 200 Hz grid, point g at time g/200 s.
        phones: the phones that overlap the stretch (their ends may lie outside it).
        utterances: the sentences, times relative to the start of the stretch.
    """

    wave: np.ndarray
    mouth: MouthTracks
    phones: tuple[Phone, ...]
    utterances: tuple[Utterance, ...]


def _shift(utterance: Utterance, by: float) -> Utterance:
    moved = tuple(Phone(p.symbol, p.start + by, p.end + by, p.stress) for p in utterance.phones)
    return Utterance(utterance.seed, utterance.sentence, moved)


def speak_stream(seed: int, split: Split, voice: Voice, duration: float) -> list[Utterance]:
    """Sentences with short pauses between them, covering [-0.5, duration + 1] s.

    Time 0 falls at a random moment of the first sentence or the pause before it.
    """
    rng = rng_for("stream", split, seed)
    utterances: list[Utterance] = []
    pause = float(rng.uniform(0.3, 0.6))
    clock = 0.0
    origin: float | None = None
    while origin is None or clock < origin + duration + 1.0:
        sentence_seed = derive_seed("stream sentence", split, seed, len(utterances))
        sentence = make_sentence(sentence_seed, split)
        phones = time_sentence(sentence, clock, voice.rate, rng)
        end = phones[-1].end
        if origin is None:
            origin = float(rng.uniform(-0.6 * pause, end - 0.1))
            phones.insert(0, Phone("SIL", clock - pause - 0.6, clock, 0))
        pause = float(rng.uniform(0.22, 0.60))
        phones.append(Phone("SIL", end, end + pause, 0))
        utterances.append(Utterance(sentence_seed, sentence, tuple(phones)))
        clock = end + pause
    return [_shift(u, -origin) for u in utterances]


def pitch_contour(utterances: list[Utterance], voice: Voice, t0: float, count: int) -> np.ndarray:
    """F0 in Hz on the control grid: declination over each sentence, a rise on stressed syllables, a larger one on
    accents, a final fall or (in questions) rise."""
    t = t0 + np.arange(count) / CONTROL_RATE
    semitones = np.zeros(count)
    for utterance in utterances:
        spoken = [p for p in utterance.phones if p.symbol != SILENCE.symbol]
        first, last = spoken[0].start, spoken[-1].end
        inside = (t >= first - 0.3) & (t < last + 0.2)
        along = np.clip((t[inside] - first) / (last - first), 0.0, 1.0)
        contour = 1.8 - 3.6 * along
        contour += (5.0 if utterance.sentence.question else -2.5) * np.clip((along - 0.85) / 0.15, 0.0, 1.0)
        for phone in spoken:
            if phone.stress and phone.phoneme.kind == "vowel":
                centre = phone.start + 0.45 * (phone.end - phone.start)
                height = 1.2 if phone.stress == 1 else 3.2
                contour += height * np.exp(-0.5 * ((t[inside] - centre) / 0.085) ** 2)
        semitones[inside] = contour
    return voice.pitch * 2.0 ** (voice.pitch_range * smooth(semitones, 0.02) / 12.0)


def _db(x: float) -> float:
    return 10.0 ** (x / 20.0) if x > -60 else 0.0


@dataclass
class _Amplitudes:
    voicing: np.ndarray
    aspiration: np.ndarray
    frication: np.ndarray
    centre: np.ndarray
    width: np.ndarray
    nasal: np.ndarray


def _fill(amps: _Amplitudes, phone: Phone, t0: float) -> None:
    """Enter one phone's sources into the control arrays."""
    phoneme = phone.phoneme

    def at(t: float) -> int:
        return max(0, min(len(amps.voicing), round((t - t0) * CONTROL_RATE)))

    whole = slice(at(phone.start), at(phone.end))
    gain = _db(_STRESS_DB[phone.stress])
    if phoneme.frication is not None:
        around = slice(at(phone.start - 0.01), at(phone.end + 0.01))
        amps.centre[around], amps.width[around] = phoneme.frication[0], phoneme.frication[1]
    amps.voicing[whole] = _db(phoneme.voicing) * gain
    if phoneme.kind == "nasal":
        amps.nasal[whole] = 1.0
    elif phoneme.kind == "aspirate":
        amps.aspiration[whole] = 0.8 * gain
    elif phoneme.kind == "fricative" and phoneme.frication is not None:
        amps.frication[whole] = _db(phoneme.frication[2]) * gain
    elif phoneme.kind in ("stop", "affricate") and phoneme.frication is not None:
        burst_end = phone.end - phoneme.aspiration
        burst = slice(at(burst_end - phoneme.burst), max(at(burst_end), at(burst_end - phoneme.burst) + 2))
        amps.frication[burst] = _db(phoneme.frication[2] + 4.0) * gain
        amps.aspiration[slice(at(burst_end), at(phone.end))] = 0.7 * gain
        if phoneme.voiced:
            amps.voicing[burst] = 0.4 * gain


def _controls(utterances: list[Utterance], voice: Voice, mouth: MouthTracks, t0: float, count: int) -> Controls:
    phones = [p for u in utterances for p in u.phones]
    amps = _Amplitudes(*(np.zeros(count) for _ in range(6)))
    amps.centre += 4000.0
    amps.width += 2000.0
    end = t0 + count / CONTROL_RATE
    for phone in phones:
        if phone.end > t0 and phone.start < end:
            _fill(amps, phone, t0)
    nasal = smooth(amps.nasal, 0.012)
    jaw = mouth.jaw.astype(np.float64)
    formants = np.empty((count, 5))
    formants[:, :4] = smooth(blend(formant_targets(phones), t0, count), 0.008) * voice.tract
    lips = 1.0 - _LIP_LENGTHENING * mouth.rounding.astype(np.float64) + 0.05 * np.maximum(mouth.width, 0.0)
    formants[:, 1:4] *= lips[:, None]
    formants[:, 4] = 4500.0 * voice.tract
    formants = np.minimum(formants, 7000.0)
    bandwidths = np.empty((count, 5))
    bandwidths[:] = np.array([60.0, 90.0, 140.0, 220.0, 300.0]) * voice.tract
    bandwidths[:, 0] += 90.0 * nasal + 60.0 * smooth(amps.aspiration, 0.01)
    bandwidths[:, 1:3] += 130.0 * nasal[:, None]
    radiated = 10.0 ** (_RADIATION_DB * (jaw - 0.45) / 20.0)
    return Controls(
        f0=pitch_contour(utterances, voice, t0, count),
        voicing=smooth(amps.voicing, 0.006) * radiated,
        aspiration=smooth(amps.aspiration, 0.005),
        frication=smooth(amps.frication, 0.004),
        formants=formants,
        bandwidths=bandwidths,
        nasal_zero=_NASAL_POLE + 190.0 * nasal,
        noise_centre=amps.centre * (1.0 - 0.22 * mouth.rounding),
        noise_width=amps.width,
    )


def make_speech(seed: int, split: Split, voice: Voice, num_samples: int) -> Speech:
    """``num_samples`` (a multiple of 80) of continuing speech at 16 kHz from a random moment on, with its movement.

    Raises:
        ValueError: ``num_samples`` is not a positive multiple of 80, or the split is unknown.
    """
    if num_samples <= 0 or num_samples % CONTROL_STEP:
        raise ValueError(f"num_samples must be a positive multiple of {CONTROL_STEP}, not {num_samples}")
    duration = num_samples / SAMPLE_RATE
    utterances = speak_stream(seed, split, voice, duration)
    phones = [p for u in utterances for p in u.phones]
    warm = round(_WARM_UP * CONTROL_RATE)
    count = num_samples // CONTROL_STEP + 2 * warm
    mouth = articulate(phones, -_WARM_UP, count, voice.openness)
    controls = _controls(utterances, voice, mouth, -_WARM_UP, count)
    raw = synthesise(
        controls,
        rng_for("speech noise", split, seed),
        jitter=voice.jitter,
        tilt=voice.tilt,
        breathiness=voice.breathiness,
    )
    raw = raw[warm * CONTROL_STEP :][:num_samples] * _LEVEL
    rng = rng_for("room", split, seed)
    level = 10.0 ** (float(rng.uniform(-72.0, -58.0)) / 20.0)
    room = level * rng.standard_normal(num_samples)
    inner = slice(warm, warm + num_samples // CONTROL_STEP)
    return Speech(
        wave=np.tanh(raw + room).astype(np.float32),
        mouth=MouthTracks(mouth.jaw[inner], mouth.width[inner], mouth.rounding[inner]),
        phones=tuple(p for p in phones if p.end > 0.0 and p.start < duration),
        utterances=tuple(utterances),
    )
