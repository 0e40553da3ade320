"""Windows of good clips, the same with their audio moved, and lips with another person's speech: what the judge does.

Windows of one file are no independent draws: they share a face, a voice and a microphone, so the intervals, which count
them as independent, are too narrow.

Shape legend: T frames, N samples.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np

from benchmarks.stages.seen import Seen
from benchmarks.stages.tables import Section, rate, table
from df_data.stages.readings import Readings
from df_data.stages.rejection import Rejected
from df_data.stages.sync import FileSync, LagCurve, SyncFilter, check_sync, lag_curve, verdict
from df_models.time import FPS, samples_for

SECONDS = (2.0, 3.0, 5.0, 9.0, 10.0)
STEP_S = 0.5
"""From one window to the next."""
SHIFTS_S = (-2.0, -1.0, -0.5, -0.2, -0.16, -0.12, -0.08, -0.04, 0.04, 0.08, 0.12, 0.16, 0.2, 0.5, 1.0, 2.0)
SHIFTED_WINDOW_S = 5.0
PAIRS = 400
"""Most pairings of lips and another's speech, drawn by a fixed seed from all there are."""
SHARED = 4
"""Stretches of one file that are judged one after the other."""
VOICES = 8
"""Most voices that one run of stretches is paired with."""
REAL = ("GRID", "talking")
"""Corpora whose people may lend each other their speech; rendered lips follow rendered speech alone."""
Outcome = Literal["full", "halved", "refused"]
OUTCOMES: tuple[Outcome, ...] = ("full", "halved", "refused")


@dataclass(frozen=True)
class Window:
    """Lips of some seconds, where they begin in their stretch, and the whole stretch's audio."""

    person: str
    file: str
    readings: Readings
    start: int
    wave: np.ndarray

    def heard(self, shift_s: float = 0.0) -> np.ndarray | None:
        """Return the audio for these lips that is late by so much; None where the stretch has not so much."""
        begin = samples_for(self.start) - round(shift_s * 16000)
        end = begin + samples_for(len(self.readings.mouth_open))
        return self.wave[begin:end] if begin >= 0 and end <= len(self.wave) else None


def windows(clips: Sequence[Seen], seconds: float, step_s: float = STEP_S) -> Iterator[Window]:
    """Yield windows of stretches; one that lacks two frames of so many seconds counts as so long."""
    for seen in clips:
        readings = seen.readings
        num = len(readings.mouth_open)
        count = min(round(seconds * FPS), num)
        if count < seconds * FPS - 2:
            continue
        for start in range(0, num - count + 1, round(step_s * FPS)):
            yield Window(seen.person, seen.file, part(readings, start, count), start, seen.wave)


def part(readings: Readings, start: int, count: int) -> Readings:
    """Return the readings of some frames."""
    tracks = {field.name: getattr(readings, field.name) for field in fields(readings)}
    return Readings(**{name: track[start : start + count] for name, track in tracks.items()})


def judged(curves: Sequence[LagCurve], filters: SyncFilter | None = None) -> Outcome:
    """Return what becomes of the last of a file's stretches."""
    filters, known = filters or SyncFilter(), FileSync()
    outcome: Outcome = "halved"
    for curve in curves:
        own = verdict(curve, filters.max_offset)
        file = verdict(known.together("mouth_sound", curve), filters.max_offset)
        known.add("mouth_sound", curve)
        try:
            outcome = "halved" if check_sync(own, file, filters, {}) else "full"
        except Rejected:
            outcome = "refused"
    return outcome


def outcome(readings: Readings, wave_N: np.ndarray) -> Outcome:
    """Return what becomes of a stretch that is a file of its own."""
    curve = lag_curve(readings, wave_N)
    return "halved" if curve is None else judged([curve])


def another(clips: Sequence[Window], voices: Sequence[Window]) -> Iterator[tuple[Window, np.ndarray]]:
    """Yield lips with the speech of another person, at most ``PAIRS``."""
    rng = np.random.default_rng(0)
    pairs = [(a, b) for a in range(len(clips)) for b in range(len(voices)) if clips[a].person != voices[b].person]
    for index in rng.permutation(len(pairs))[:PAIRS]:
        lips, voice = clips[pairs[index][0]], voices[pairs[index][1]].heard()
        if voice is not None:
            yield lips, voice[: samples_for(len(lips.readings.mouth_open))]


def window_rows(
    clips: Sequence[Seen], voices: Sequence[Seen], name: str
) -> tuple[list[list[str]], dict[str, dict[str, int]]]:
    """Judge windows with their own audio and with another's, by length."""
    rows, figures = [], {}
    for seconds in SECONDS:
        mine = list(windows(clips, seconds))
        if not mine:
            continue
        said = Counter(outcome(one.readings, own) for one in mine if (own := one.heard()) is not None)
        others = list(windows(voices, seconds))
        wrong = Counter(outcome(one.readings, heard) for one, heard in another(mine, others))
        figures |= {f"{name}, {seconds:g} s: own": dict(said), f"{name}, {seconds:g} s: another's": dict(wrong)}
        for kind, found in (("its own", said), ("another's", wrong)):
            if found:
                shares = [rate(found[one], found.total()) for one in OUTCOMES]
                rows.append([name, f"{seconds:g}", kind, str(found.total()), *shares])
    return rows, figures


def shift_rows(clips: Sequence[Seen], name: str) -> list[list[str]]:
    """Judge windows whose audio was moved, with audio that is there on both sides of them."""
    rows = []
    mine = list(windows(clips, 2.0 if name == "GRID" else SHIFTED_WINDOW_S))
    own = own_offsets(clips)
    for shift in SHIFTS_S:
        heard = [(one, moved) for one in mine if (moved := one.heard(shift - own[one.file])) is not None]
        if not heard:
            continue
        curves = [curve for one, moved in heard if (curve := lag_curve(one.readings, moved)) is not None]
        said = Counter(judged([curve]) for curve in curves)
        errors = np.abs([verdict(curve, SyncFilter().max_offset).offset - shift for curve in curves])
        shares = [rate(said[one], said.total()) for one in OUTCOMES]
        rows.append(
            [name, f"{shift * 1000:+.0f}", str(said.total()), *shares, rate((errors <= 0.041).sum(), len(errors))]
        )
    return rows


def own_offsets(clips: Sequence[Seen]) -> dict[str, float]:
    """Return the offset that each file has of itself, in seconds, from all of it; of one too unsure to tell, 0."""
    known: dict[str, LagCurve] = {}
    for seen in clips:
        curve = lag_curve(seen.readings, seen.wave)
        if curve is not None:
            known[seen.file] = known[seen.file].with_more(curve) if seen.file in known else curve
    said = {file: verdict(curve, SyncFilter().max_offset) for file, curve in known.items()}
    return {file: one.offset if one.evidence > 1 else 0.0 for file, one in said.items()}


def shared_rows(clips: Sequence[Seen], voices: Sequence[Seen], name: str) -> list[list[str]]:
    """Judge windows of 2 s one after the other as stretches of one file: what the last of them becomes."""
    rows = []
    mine = list(windows(clips, 2.0, 2.0))
    others = list(windows(voices, 2.0, 2.0))
    rng = np.random.default_rng(0)
    for count in range(1, SHARED + 1):
        chains, heard = list(_chains(mine, count)), list(_chains(others, count))
        said: Counter[Outcome] = Counter(_together(chain, chain) for chain in chains)
        wrong: Counter[Outcome] = Counter()
        for chain in chains:
            strange = [voice for voice in heard if voice[0].person != chain[0].person]
            for index in rng.permutation(len(strange))[:VOICES]:
                wrong[_together(chain, strange[index])] += 1
        for kind, found in (("its own", said), ("another's", wrong)):
            if found:
                shares = [rate(found[one], found.total()) for one in OUTCOMES]
                rows.append([name, str(count), kind, str(found.total()), *shares])
    return rows


def _together(lips: Sequence[Window], voices: Sequence[Window]) -> Outcome:
    """Return what becomes of the last of a file's stretches when they are heard with these voices."""
    curves = [lag_curve(one.readings, _audio(voice)) for one, voice in zip(lips, voices)]
    return judged([curve for curve in curves if curve is not None])


def _audio(window: Window) -> np.ndarray:
    heard = window.heard()
    assert heard is not None, "the audio of its own frames"
    return heard


def _chains(clips: Sequence[Window], count: int) -> Iterator[list[Window]]:
    """Yield runs of ``count`` windows of one file: one file, one offset."""
    for begin in range(len(clips) - count + 1):
        chain = list(clips[begin : begin + count])
        if len({one.file for one in chain}) == 1:
            yield chain


def voices_for(name: str, reported: Mapping[str, Sequence[Seen]]) -> list[Seen]:
    """Return whose speech a corpus' lips are paired with: reported people alone."""
    lenders = REAL if name in REAL else (name,)
    return [seen for lender in lenders for seen in reported.get(lender, ())]


def of_one_form(clips: Sequence[Seen], voices: Sequence[Seen]) -> str:
    """Judge lips with the voices of people who say sentences of the same form at the same pace, and say how it went."""
    lips, heard = list(windows(clips, 3.0)), list(windows(voices, 3.0))
    said = Counter(outcome(one.readings, voice) for one, voice in another(lips, heard))
    return (
        f"Not in the tables: with the voices of GRID's other speakers, who are calibration's own, {said['full']} of "
        f"{said.total()} windows of 3 s have full weight, {rate(said['full'], said.total())}. All of GRID's sentences "
        "have one form and one pace, so another's speech often fits."
    )


def measure(reported: Mapping[str, Sequence[Seen]], calibrated: Sequence[Seen]) -> Section:
    """Judge the reported people's windows, alone, moved, with another reported person's speech, and as files.

    Args:
        calibrated: GRID's clips of calibration people, for :func:`of_one_form`.
    """
    rows, shifts, shared, figures = [], [], [], {}
    for name, clips in reported.items():
        voices = voices_for(name, reported)
        more, found = window_rows(clips, voices, name)
        rows, figures = rows + more, figures | found
        shifts += shift_rows(clips, name)
        shared += shared_rows(clips, voices, name)
    head = ("full weight", "halved", "refused")
    text = (
        "Calibrated on seven speakers of GRID and three of `talking`; lips and voices here are of all others. That is "
        "one speaker of GRID, so real lips have the speech of either real corpus. In brackets the Wilson interval of "
        "95 %, which takes windows of one file for independent and so is too narrow.\n\n"
        + table(("clips of", "seconds", "audio", "windows", *head), rows)
        + "\n\n"
        + of_one_form(reported["GRID"], calibrated)
        + "\n\nThe audio moved, beside the file's own offset (measured from all of it), windows of 5 s (GRID: 2 s):\n\n"
        + table(("clips of", "audio late by (ms)", "windows", *head, "offset within a frame"), shifts)
        + "\n\nStretches of 2 s of one file, one after the other, which share what they know; the last one. GRID's "
        "files have one each.\n\n" + table(("clips of", "stretches", "audio", "runs", *head), shared)
    )
    return Section("Lips and audio (`sound_offset`, `other_speech`, `perhaps_out_of_sync`)", text, figures)
