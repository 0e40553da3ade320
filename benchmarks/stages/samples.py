"""Pictures that freeze, lips that stand still, lips beyond the edge of the image: what becomes of such samples.

Shape legend: T frames, S side of the crop.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.stages.seen import Seen
from benchmarks.stages.tables import Section, rate, table
from benchmarks.stages.talks import Models
from df_data.stages.cut_off import lips_outside
from df_data.stages.prepare import StageConfig, clip_windows
from df_data.stages.quality import QualityFilter
from df_data.stages.readings import CHIN, UPPER_LIP
from df_data.stages.samples import is_frozen, lips_are_still, speech_frames
from df_data.stages.stillness import frozen_frames
from df_data.stages.voice import find_voice, silero_vad
from df_models.media import read_video, write_video

SAMPLE, STRIDE = 33, 20
"""Frames of a sample and from one to the next, a build's defaults."""
FROZEN_RUNS = (5, 15, 40)
"""Frames that stand still, from a sample's twentieth on: 0.2, 0.6 and 1.6 s."""
CLIPS = 12
"""Most clips a corpus that are encoded anew, or read anew."""
LOOKS = 24
"""Frames of each clip whose landmarks are read anew."""
LOWEST_LIP = 17
CUTS = (0.0, 0.5, 1.0, 1.3, 1.6, 2.0)
"""Where the image ends: 0 at the upper lip, 1 at the lowest landmark of the lips, 2 at the chin, in the mean."""


def windows(num: int) -> list[slice]:
    """Return the samples of a stretch."""
    return [slice(start, start + SAMPLE) for start in clip_windows(num, SAMPLE, STRIDE)]


def frozen(frames: np.ndarray, length: int) -> np.ndarray:
    """Return frames that stand still for some time, in their middle."""
    out, start = frames.copy(), (len(frames) - length) // 2
    out[start : start + length] = frames[start]
    return out


def encoded(frames: np.ndarray) -> np.ndarray:
    """Return frames as they come out of an H.264 file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_video(path, frames)
        return read_video(path)[0]


def frozen_rows(clips: Sequence[Seen], name: str, quality: QualityFilter) -> list[list[str]]:
    """Freeze clips, and count samples that are left out, by whether more of them stands still than may."""
    most = quality.frozen.max_share
    rows = []
    alone = [
        is_frozen(still[part], most)
        for one in clips
        for still in [frozen_frames(one.frames)]
        for part in windows(len(still))
    ]
    rows.append([name, "nothing", str(len(alone)), "no", rate(sum(alone), len(alone))])
    for length in FROZEN_RUNS:
        said, truth = [], []
        for one in clips[:CLIPS]:
            frames = frozen(one.frames[:75], length)
            still, start = frozen_frames(encoded(frames)), (len(frames) - length) // 2
            for part in windows(len(frames)):
                stands = np.zeros(len(frames), dtype=bool)
                stands[start : start + length] = True
                said.append(is_frozen(still[part], most))
                truth.append(bool(stands[part].mean() > most))
        for wanted in (True, False):
            found = [one for one, true in zip(said, truth) if true == wanted]
            if found:
                what = f"{length} frames, encoded anew"
                rows.append([name, what, str(len(found)), "yes" if wanted else "no", rate(sum(found), len(found))])
    return rows


def lip_rows(clips: Sequence[Seen], name: str, quality: QualityFilter) -> list[list[str]]:
    """Count samples whose lips stand still: as they are, and with the lips of one of their frames."""
    rows = []
    speeches = [
        speech_frames(find_voice(one.wave, silero_vad(), quality.voice).speech, len(one.landmarks.points))
        for one in clips
    ]
    for what, still in (("as they are", False), ("the lips of one frame, with the noise of reading them", True)):
        said = []
        for one, speech in zip(clips, speeches):
            mouth = one.readings.mouth_open
            if still:
                noise = np.random.default_rng(0).normal(0, READING_NOISE, len(mouth))
                mouth = np.full(len(mouth), np.median(mouth)) + noise
            said += [
                lips_are_still(mouth[part], speech[part], quality.min_mouth_std)
                for part in windows(len(mouth))
                if speech[part].mean() >= 0.5
            ]
        rows.append([name, what, str(len(said)), "yes" if still else "no", rate(sum(said), len(said))])
    return rows


READING_NOISE = 0.0015
"""Face heights: about half of what is read of rendered heads that move all but their lips (0.003)."""


def edge_rows(clips: Sequence[Seen], name: str, models: Models, config: StageConfig) -> list[list[str]]:
    """Let the image end at the lips or below, the last row repeated as the crop does, and read the landmarks anew.

    What is true is told by the landmarks of the whole image: lips beyond the edge in more frames than may are to be
    refused; those that keep their margin in all frames are to be left alone, and those in between are neither.
    """
    uncut = [lips_outside(_pixels(one.landmarks.points), 256, 256) > config.max_lips_outside for one in clips]
    rows = [[name, "nowhere", str(len(uncut)), "no", rate(sum(uncut), len(uncut))]]
    said: dict[str, list[bool]] = {"yes": [], "no": [], "either": []}
    for one in clips[:CLIPS]:
        every = max(1, len(one.landmarks.points) // LOOKS)
        points, whole = _pixels(one.landmarks.points[::every]), one.frames[::every]
        known = [points[:, place, 1].mean() for place in (UPPER_LIP, LOWEST_LIP, CHIN)]
        for share in CUTS:
            row = round(float(np.interp(share, (0, 1, 2), known)))
            if row < 255:
                beyond = float((points[:, LOWEST_LIP, 1] > row).mean()) > config.max_lips_outside
                truth = "yes" if beyond else "either" if lips_outside(points, row, 256) else "no"
                said[truth].append(_refused(whole, row, models, config))
    rows += [[name, "at a row", str(len(found)), truth, rate(sum(found), len(found))] for truth, found in said.items()]
    return rows


def _refused(frames: np.ndarray, row: int, models: Models, config: StageConfig) -> bool:
    cut = frames.copy()
    cut[:, row:] = cut[:, row - 1 : row]
    seen = models.reader.landmarks(cut)
    if not seen.detected.mean() > 0.9:
        return True
    return lips_outside(_pixels(seen.points[seen.detected]), row, 256) > config.max_lips_outside


def measure(reported: Mapping[str, Sequence[Seen]], models: Models) -> Section:
    """Measure all three on the reported people."""
    quality, config = QualityFilter(), StageConfig()
    stills, lips, edges = [], [], []
    for name, clips in reported.items():
        stills += frozen_rows(clips, name, quality)
        lips += lip_rows(clips, name, quality)
        edges += edge_rows(clips, name, models, config)
    text = (
        f"A sample of {SAMPLE} frames is left out if more than {quality.frozen.max_share:.0%} of it stands still:\n\n"
        + table(("clips of", "stands still", "samples", "to be left out", "left out"), stills)
        + "\n\nA sample with speech in half of it or more whose lips stand still is halved:\n\n"
        + table(("clips of", "lips", "samples", "to be halved", "halved"), lips)
        + "\n\nClips whose image ends between the upper lip and the chin (`face_cut_off`), by where the lips "
        "truly are: beyond the edge in more than 10 % of the frames (yes), never within 5 % of the face's height of it "
        "(no), or between:\n\n" + table(("clips of", "the image ends", "clips", "to be refused", "refused"), edges)
    )
    return Section("Samples that stand still, lips at the edge", text, {"frozen": stills, "lips": lips, "edges": edges})


def _pixels(points_TL3: np.ndarray) -> np.ndarray:
    return (points_TL3[..., :2] + 1) * 128
