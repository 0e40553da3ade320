"""Audio shifted against the lips by a known time: what the offset rule finds.

Shape legend: T frames, N samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from benchmarks.stages.tables import RULE_HEADER, Section, Tally, percent, table
from df_data.stages.rejection import Rejected
from df_data.stages.sync import SyncFilter, check_offset, mouth_sound_offset
from df_data.synth.clip import face_tracks
from df_data.synth.head.identity import Identity
from df_data.synth.head.structure import truths
from df_data.synth.speech.speech import make_speech
from df_data.synth.speech.voice import make_voice
from df_models.time import SAMPLE_RATE, samples_for

SHIFTS_MS = (-200, -160, -120, -80, -40, 0, 40, 80, 120, 160, 200)
TOLERATED_MS = 100
Outcome = Literal["passed", "halved", "refused"]
MouthAndAudio = tuple[np.ndarray, np.ndarray]


def exact_mouths(count: int, frames: int = 75) -> list[MouthAndAudio]:
    """Return exact openings of the mouth ``[T]`` and the audio ``[N]`` of rendered people, without images."""
    found = []
    for number in range(count):
        speech = make_speech(number, "train", make_voice(number), samples_for(frames))
        tracks = face_tracks(number, speech, frames)
        found.append((truths(Identity.sample(number), tracks)["mouth_open"], speech.wave))
    return found


def shifted(wave_N: np.ndarray, ms: int) -> np.ndarray:
    """Return audio that comes ``ms`` later; what it leaves free is silent."""
    by = abs(ms) * SAMPLE_RATE // 1000
    return np.pad(wave_N, (by, 0))[: len(wave_N)] if ms >= 0 else np.pad(wave_N[by:], (0, by))


def outcome(mouth_T: np.ndarray, wave_N: np.ndarray, filters: SyncFilter) -> tuple[Outcome, float]:
    """Return what the rule does, and the measured offset in ms."""
    found = mouth_sound_offset(mouth_T, wave_N, filters.max_offset)
    if found is None:
        return "passed", float("nan")
    try:
        doubtful = check_offset(found.scores(), filters)
    except Rejected:
        return "refused", 1000 * found.offset
    return "halved" if doubtful else "passed", 1000 * found.offset


def measure(sets: Mapping[str, Sequence[MouthAndAudio]]) -> Section:
    """Shift every clip's audio by each of ``SHIFTS_MS``."""
    filters, parts, figures = SyncFilter(), [], {}
    rules = []
    for name, clips in sets.items():
        rows, decisions = [], []
        for ms in SHIFTS_MS:
            found = [outcome(mouth, shifted(wave, ms), filters) for mouth, wave in clips]
            errors = np.abs(np.array([offset for _, offset in found]) - ms)
            kinds = [kind for kind, _ in found]
            decisions += [(kind, abs(ms) > TOLERATED_MS) for kind in kinds]
            shares = [percent(kind == wanted for kind in kinds) for wanted in ("refused", "halved", "passed")]
            rows.append([f"{ms:+d}", *shares, f"{np.nanmedian(errors):.0f} ms", percent(errors <= 40)])
        refused = Tally.of((kind == "refused", truth) for kind, truth in decisions)
        noticed = Tally.of((kind != "passed", truth) for kind, truth in decisions)
        rules += [[f"{name}: refused", *refused.cells()], [f"{name}: refused or halved", *noticed.cells()]]
        figures[name] = {"rows": rows, "refused": refused.figures(), "noticed": noticed.figures()}
        header = ("audio late by (ms)", "refused", "halved", "passed", "median error", "within a frame")
        parts.append(f"{name}, {len(clips)} clips of 3 s:\n\n{table(header, rows)}")
    text = (
        f"The rule should act beyond {TOLERATED_MS} ms: shifts of 120, 160 and 200 ms are to be found, 0, 40 and 80 ms "
        "to be left alone.\n\n"
    )
    text += table(("rule", *RULE_HEADER), rules) + "\n\n" + "\n\n".join(parts)
    return Section("Offset of audio and lips (`mouth_sound_offset`)", text, figures)
