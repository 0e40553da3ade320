"""Blur, exposure, still lips and turned heads of known size: what halves a clip's weight.

Shape legend: T frames, S side in pixels.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.stages.tables import RULE_HEADER, Section, Tally, percent, table
from benchmarks.stages.talks import SIDE, Models, Talk
from df_data.stages.gaps import fill_gaps
from df_data.stages.image import brightness, sharpness
from df_data.stages.quality import QualityFilter
from df_data.stages.readings import readings_of
from df_data.stages.rejection import Rejected
from df_data.synth.head.face_state import FaceTracks
from df_data.synth.head.identity import Identity
from df_data.synth.head.render import render

SIGMAS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
GAINS = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0)
AMPLITUDES = (0.0, 0.1, 0.3, 1.0)
YAWS = (0.0, 15.0, 30.0, 40.0, 50.0, 60.0)
LOOKED = 5
Row = tuple[float, list[float], list[bool], bool | None]
"""Size of the fault, the clips' scores, whether each is halved, and whether it ought to be (None: either)."""


def blurred(frames_TSSC: np.ndarray, sigma: float) -> np.ndarray:
    """Return frames under a Gaussian of ``sigma`` pixels, by their spectra; the edges go on as mirrors."""
    if sigma == 0:
        return frames_TSSC
    pad = int(np.ceil(4 * sigma))
    widths = ((0, 0), (pad, pad), (pad, pad), (0, 0))
    wide = np.pad(frames_TSSC.astype(np.float64), widths, mode="symmetric")
    across, down = (np.exp(-2 * (np.pi * sigma * np.fft.fftfreq(n)) ** 2) for n in wide.shape[1:3])
    spectra = np.fft.fft2(wide, axes=(1, 2)) * (across[:, None] * down)[None, :, :, None]
    out = np.fft.ifft2(spectra, axes=(1, 2)).real[:, pad:-pad, pad:-pad]
    return np.clip(out + 0.5, 0, 255).astype(np.uint8)


def exposed(frames_TSSC: np.ndarray, gain: float) -> np.ndarray:
    """Return frames of a camera that lets in ``gain`` times the light: linear, then the curve of sRGB (gamma 2.2)."""
    linear = gain * (frames_TSSC / 255.0) ** 2.2
    return (255 * np.clip(linear, 0, 1) ** (1 / 2.2) + 0.5).astype(np.uint8)


def blur_rows(talks: Sequence[Talk], filters: QualityFilter) -> list[Row]:
    """Blur every clip's crop; of a sigma of 2 pixels in 256 it is to be found, up to 0.5 to be left alone."""
    looked = [talk.frames[:: max(1, len(talk.frames) // LOOKED)] for talk in talks]
    found = []
    for sigma in SIGMAS:
        scores = [sharpness(blurred(frames, sigma)) for frames in looked]
        halved = [score < (filters.min_sharpness or 0.0) for score in scores]
        found.append((sigma, scores, halved, True if sigma >= 2 else False if sigma <= 0.5 else None))
    return found


def exposure_rows(talks: Sequence[Talk], filters: QualityFilter) -> list[Row]:
    """Expose every clip anew; a tenth of the light and less, and five times, are to be found, 0.5 to 1.5 left alone."""
    looked = [talk.frames[:: max(1, len(talk.frames) // LOOKED)] for talk in talks]
    found = []
    for gain in GAINS:
        scores = [brightness(exposed(frames, gain)) for frames in looked]
        low, high = filters.min_brightness or 0.0, filters.max_brightness or 1.0
        wanted = True if gain <= 0.1 or gain >= 5 else False if 0.5 <= gain <= 1.5 else None
        found.append((gain, scores, [not low <= score <= high for score in scores], wanted))
    return found


def lip_rows(talks: Sequence[Talk], models: Models, filters: QualityFilter, frames: int = 30) -> list[Row]:
    """Draw the clips again with a mouth that moves less; still ones are to be found, full movement left alone."""
    found = []
    for amplitude in AMPLITUDES:
        scores = []
        for talk in talks:
            assert talk.known is not None
            tracks = _part(talk.known.tracks, frames)
            calm = {name: _calmed(getattr(tracks, name), amplitude) for name in ("jaw", "lip_width", "lip_round")}
            images = render(Identity.sample(talk.known.identity), replace(tracks, **calm), SIDE).frames
            readings = readings_of(fill_gaps(models.reader.landmarks(images), 2))
            scores.append(float(np.nanstd(readings.mouth_open)))
        halved = [score < (filters.min_mouth_std or 0.0) for score in scores]
        found.append((amplitude, scores, halved, {0.0: True, 1.0: False}.get(amplitude)))
    return found


def yaw_rows(people: int, models: Models, filters: QualityFilter, frames: int = 6) -> list[Row]:
    """Draw heads turned to both sides by known angles; 50 degrees and more are to be found, up to 40 left alone."""
    found = []
    for yaw in YAWS:
        scores = []
        for person in range(people):
            turn = yaw * (-1) ** person + np.linspace(-1, 1, frames)
            tracks = FaceTracks.neutral(frames, yaw=turn, jaw=np.linspace(0, 0.4, frames))
            images = render(Identity.sample(person), tracks, SIDE).frames
            try:
                readings = readings_of(fill_gaps(models.reader.landmarks(images), 2))
            except Rejected:
                continue
            scores.append(float(np.nanmedian(np.abs(readings.yaw))))
        halved = [score > (filters.max_yaw or 90.0) for score in scores]
        found.append((yaw, scores, halved, True if yaw >= 50 else False if yaw <= 40 else None))
    return found


def monotonous(rows: Sequence[Row], *, falling: bool) -> float:
    """Return the share of steps from one size of the fault to the next, over all clips, that move the score rightly."""
    steps = [
        (a > b) if falling else (a < b)
        for (_, first, _, _), (_, second, _, _) in itertools.pairwise(rows)
        for a, b in zip(first, second)
    ]
    return float(np.mean(steps))


def measure(sets: Mapping[str, Sequence[Talk]], models: Models, people: int) -> Section:
    """Give the clips each fault in each size."""
    filters = QualityFilter()
    rendered = next(talks for talks in sets.values() if talks[0].known is not None)
    kinds: list[tuple[str, str, list[Row], bool | None]] = []
    for name, talks in sets.items():
        kinds.append(("blur, sigma in pixels of 256 (`sharpness`)", name, blur_rows(talks, filters), True))
        kinds.append(("exposure, times the light (`brightness`)", name, exposure_rows(talks, filters), False))
    few = rendered[:people]
    kinds.append(("mouth's movement, of its own (`mouth_std`)", "rendered", lip_rows(few, models, filters), False))
    kinds.append(("yaw in degrees (`yaw_abs`)", "rendered", yaw_rows(people, models, filters), None))
    rules, parts, figures = [], [], {}
    for title, name, rows, falling in kinds:
        tally = Tally.of((said, wanted) for _, _, halved, wanted in rows if wanted is not None for said in halved)
        steps = "-" if falling is None else f"{monotonous(rows, falling=falling):.1%}"
        rules.append([f"{title}, {name}", *tally.cells(), steps])
        figures[f"{title}, {name}"] = tally.figures() | {"rows": [_figures(row) for row in rows]}
        parts.append(f"{title}, clips of {name}:\n\n{_table(rows)}")
    least = {name: min(float(np.nanstd(talk.readings.mouth_open)) for talk in talks) for name, talks in sets.items()}
    figures["least mouth_std of the clips as they are"] = least
    told = ", ".join(f"{value:.3f} ({name})" for name, value in least.items())
    text = (
        "Exposure is the light let in; brightness is the mean grey value after the curve of the image, so the limits "
        f"of {filters.min_brightness:g} and {filters.max_brightness:g} are reached only by extreme exposures. The "
        f"least `mouth_std` of the clips as they are is {told}; the limit is {filters.min_mouth_std:g}. A size that is "
        "neither to be halved nor not is told by *either*, and left out of precision and recall.\n\n"
    )
    text += table(("fault, clips of", *RULE_HEADER, "steps that move the score rightly"), rules)
    return Section("Faults that halve the weight", text + "\n\n" + "\n\n".join(parts), figures)


def _table(rows: Sequence[Row]) -> str:
    wanted: Callable[[Any], str] = lambda value: {True: "yes", False: "no", None: "either"}[value]  # noqa: E731
    body = [
        [f"{size:g}", len(scores), f"{np.median(scores):.3g}" if scores else "-", percent(halved), wanted(truth)]
        for size, scores, halved, truth in rows
    ]
    return table(("size", "clips", "median score", "halved", "to be halved"), body)


def _figures(row: Row) -> dict[str, Any]:
    size, scores, halved, truth = row
    return {"size": size, "median": float(np.median(scores)) if scores else None, "halved": sum(halved), "truth": truth}


def _part(tracks: FaceTracks, frames: int) -> FaceTracks:
    return FaceTracks(*(column[:frames] for column in tracks.as_array().T))


def _calmed(track_T: np.ndarray, amplitude: float) -> np.ndarray:
    return track_T.mean() + amplitude * (track_T - track_T.mean())
