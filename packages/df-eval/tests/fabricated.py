"""A tiny evaluation made of constructed signals and images: no model, no reader."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from scipy import ndimage

from df_eval.clips import EvalClip
from df_eval.config import EvalConfig
from df_eval.measure import GENERATED, GROUND_TRUTH, RECONSTRUCTION, ROWS, SHIFTED, STATIC, Truth, Video, measure
from df_eval.reading.readings import FaceReadings, Lips
from df_eval.reports.curves import add_curves
from df_eval.reports.goals import goals_of
from df_eval.reports.output import EvalOutcome
from df_eval.results import LengthResults

SHIFTS = (25, 30)
SIZE = 16


def signal(length: int, *seed: int, width: float = 1.5) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=length + 40)
    return ndimage.gaussian_filter1d(noise, width)[20 : 20 + length]


def image(mouth_T: np.ndarray, seed: int) -> np.ndarray:
    """A textured square with a dark bar that grows with the mouth: uint8 [T, S, S, 3]."""
    base = np.random.default_rng(seed).integers(90, 200, size=(SIZE, SIZE, 3))
    frames = np.repeat(base[None], len(mouth_T), axis=0)
    level = np.clip((mouth_T - mouth_T.min()) / max(np.ptp(mouth_T), 1e-9), 0, 1)
    frames[:, 10:13, 5:11] = (frames[:, 10:13, 5:11] * (1 - 0.8 * level[:, None, None, None])).astype(int)
    return frames.astype(np.uint8)


def readings(mouth_T: np.ndarray, index: int, drift: float = 0.0) -> FaceReadings:
    length = len(mouth_T)
    angles = np.stack([signal(length, index, angle, width=6) * 20 for angle in range(3)], axis=1)
    identity = np.ones((length, 4))
    identity[1:, 0] = 1.1 + drift * np.arange(1, length) / length
    blink = np.zeros(length)
    blink[length // 2] = 1.0
    place = np.random.default_rng(index).normal(size=(1, 6, 2))
    heard = np.random.default_rng([index, 5]).normal(size=(length, 8))
    return FaceReadings(
        np.ones(length, bool),
        mouth_T,
        0.5 * mouth_T + 1,
        blink,
        angles,
        identity,
        lips_TK2=place * (1 + 0.1 * mouth_T[:, None, None]),
        eyes_T=np.full(length, 2.0),
        quality_T=0.5 + 0.1 * np.tanh(mouth_T),
        brow_T=0.3 + 0.02 * signal(length, index, 7),
        gaze_T2=np.stack([0.05 * mouth_T, 0.02 * angles[:, 0]], axis=1),
        expression_TK2=place * 0.1 * mouth_T[:, None, None],
        flame_TD=np.concatenate(
            [
                0.2 * np.stack([signal(length, index, 20 + k) for k in range(50)], axis=1),
                np.radians(angles),
                np.radians(10 * mouth_T)[:, None] * [[1.0, 0.1, 0.0]],
                np.ones((length, 3)),
            ],
            axis=1,
        ),
        look_T2=5 * np.stack([mouth_T, signal(length, index, 9)], axis=1),
        theval_TM=np.stack(
            [0.4 + 0.01 * signal(length, index, 8 + k) for k in range(2)]
            + [0.3 + 0.1 * mouth_T] * 2
            + [0.01 * angles[:, k] for k in range(2)],
            axis=1,
        ),
        speech_T=np.arange(length) % 33 < 20,
        volume_T=np.abs(mouth_T),
        seen_TD=heard + 0.1,
        heard_TD=heard,
    )


def gap(frames_THWC: np.ndarray, true_THWC: np.ndarray) -> np.ndarray:
    """Stands in for LPIPS."""
    return np.abs(frames_THWC / 255.0 - true_THWC / 255.0).mean(axis=(1, 2, 3))


def features(video: Video) -> dict[str, np.ndarray]:
    """Stand in for what networks see in a clip: two windows, and every frame."""
    assert video.readings is not None
    frames = video.frames_THWC[::8, ::5, ::5].reshape(-1, 48) / 255.0
    windows = np.stack([frames[0], frames[-1]])
    return {"i3d": windows, "cd_i3d": windows, "inception": frames, "readings": video.readings.table()}


def rows_of(index: int, frames: int, noise: float, drift: float) -> tuple[Truth, dict[str, Video]]:
    """A clip whose generated mouth is the truth plus ``noise``, and whose identity drifts by ``drift``."""
    mouth = signal(frames + max(SHIFTS), 1000 + index)
    signals = readings(mouth, index)
    true_frames = image(mouth[:frames], index)
    made_mouth = mouth[:frames] + noise * signal(frames, 2000 + index)
    made = image(made_mouth, index)
    near = np.clip(true_frames.astype(int) + 2, 0, 255).astype(np.uint8)
    read = signals.first(frames)
    generated = Video(
        made,
        readings(made_mouth, index, drift),
        Lips(made_mouth * 3 - 1, signals.lip_width_T[:frames] * 2 + 0.1 * signal(frames, 4000 + index)),
    )
    videos = {
        GROUND_TRUTH: Video(true_frames, read),
        RECONSTRUCTION: Video(near, read),
        GENERATED: generated,
        SHIFTED: Video(made, generated.readings),
        STATIC: Video(np.repeat(true_frames[:1], frames, axis=0), read.repeated(frames)),
    }
    others = [signal(frames + max(SHIFTS), 3000 + index)]
    silent = np.arange(frames) % 33 >= 20
    truth = Truth(true_frames, signals, np.ones(4), np.ones(4), other_mouths=others, silent_T=silent, lpips=gap)
    return truth, videos


def results_of(clips: int, frames: int, noise: float, drift: float) -> tuple[LengthResults, list[dict[str, Video]]]:
    results = LengthResults(frames, [f"clip-{i}" for i in range(clips)], [f"person-{i // 2}" for i in range(clips)])
    shown = []
    for index in range(clips):
        truth, videos = rows_of(index, frames, noise, drift)
        for row in ROWS:
            results.measured[row].append(measure(row, videos[row], truth, max_lag=5, shifts=SHIFTS))
            add_curves(results, row, index, videos[row], truth, max_lag=5, shifts=SHIFTS)
            for name, values in features(videos[row]).items() if row != SHIFTED else ():
                results.add_features(row, index, name, values)
        shown.append(videos)
    return results, shown


def outcome_of(
    metrics_jsonl: Path, clips: int = 4, noise: float = 0.2, drift: float = 0.0, lengths: tuple[int, ...] = (33, 65)
) -> EvalOutcome:
    config = EvalConfig(clips=clips, frames=lengths, videos=1, shifts=SHIFTS, resamples=200)
    results, videos = {}, {}
    for frames in config.frames:
        results[frames], videos[frames] = results_of(clips, frames, noise, drift)
    return EvalOutcome(
        run="fabricated",
        config=config,
        clips=[
            EvalClip(f"clip-{i}", str(i), v[GROUND_TRUTH].frames_THWC, np.zeros(640 * 65, np.float32), {})
            for i, v in enumerate(videos[lengths[-1]])
        ],
        results=results,
        tables={frames: res.table(0, 200) for frames, res in results.items()},
        goals=[goal for res in results.values() for goal in goals_of(res, 0, 200)],
        videos=videos,
        protocol=[("reader", "constructed <signals>")],
        facts={"reader": "constructed"},
        missing={257: "the clips have 65 frames"},
        metrics_jsonl=metrics_jsonl,
        seconds={},
    )


class Page(HTMLParser):
    """Collects what a page refers to and checks that its tags nest."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("img", "meta", "link", "br", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()
