"""Images, audio, structure and latents on one clock: files of every kind, and what a build stores of them.

A frame that a stage calls p is held against the instant p / 25 s after the file's first image: the number stamped on
the image tells which instant it truly shows; the audio's place is found by correlation with the scene's own.

Shape legend: P frames at 25 fps, N samples at 16 kHz, F images of a file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.stages.files import FORMATS, FileFormat, write_file
from benchmarks.stages.scene import Scene, stamp_of, stamped
from benchmarks.stages.tables import Section, table
from benchmarks.stages.talks import FACES
from df_data.build.build import build
from df_data.build.config import BuildConfig, ClipConfig, ModelPaths
from df_data.format.sample import Sample
from df_data.format.shards import iter_samples
from df_data.format.stored_video import read_audio, read_frames
from df_data.sources.config import SourceConfig, SplitConfig
from df_data.stages.decode import decode_clip
from df_data.stages.prepare import StageConfig
from df_models.crop import CropBox
from df_models.encoders import load_audio_encoder, load_video_vae
from df_models.settings import Location
from df_models.time import FPS, SAMPLE_RATE, samples_for

SECONDS = 3.2
SIDE = 256
STORED = 64
LAGS = range(-3, 4)
FINE_MS = range(-120, 121, 4)


@dataclass(frozen=True)
class Clock:
    """How far what is shown lies from what should be.

    Attributes:
        worst_ms: largest distance of a frame's true instant from p / 25 s.
        bound_ms: half the largest distance between the file's images, the best that any choice of images can do.
        mean_ms: mean of the signed distances.
        audio_ms: by how much the audio is late, at the clip's beginning and its end.
    """

    worst_ms: float
    bound_ms: float
    mean_ms: float
    audio_ms: tuple[float, float]


def audio_lag(found_N: np.ndarray, true_N: np.ndarray) -> int:
    """Return by how many samples ``found`` comes later than ``true``, by their correlation."""
    size = 1 << int(np.ceil(np.log2(2 * len(true_N))))
    curve = np.fft.irfft(np.fft.rfft(found_N, size) * np.conj(np.fft.rfft(true_N, size)), size)
    lag = int(curve.argmax())
    return lag if lag < size // 2 else lag - size


def _clock(times_P: np.ndarray, start: float, times_F: np.ndarray, wave_N: np.ndarray, scene: Scene) -> Clock:
    errors = times_P - start - np.arange(len(times_P)) / FPS
    true = scene.audio(start, len(wave_N))
    piece = len(wave_N) // 2
    lags = [1000 * audio_lag(wave_N[part], true[part]) / SAMPLE_RATE for part in (slice(piece), slice(-piece, None))]
    return Clock(
        worst_ms=1000 * float(np.abs(errors).max()),
        bound_ms=500 * float(np.diff(times_F).max()),
        mean_ms=1000 * float(errors.mean()),
        audio_ms=(lags[0], lags[1]),
    )


def decoded_clock(made: FileFormat, seed: int, folder: Path) -> Clock:
    """Write a file of stamped grey images and a scene's audio, decode it and compare."""
    scene = Scene.make(seed, seed, SECONDS)
    times = made.times(SECONDS, seed)
    plain = np.full((128, 128, 3), 90, np.uint8)
    path = folder / f"file{made.suffix}"
    write_file(path, made, scene, [stamped(plain, number) for number in range(len(times))], times)
    clip = decode_clip(path)
    shown = times[[stamp_of(frame) for frame in clip.frames]]
    return _clock(shown, 0.0, times, clip.wave, scene)


@dataclass(frozen=True)
class SampleClock:
    """A stored sample against the truth.

    Attributes:
        start_s: where in the file's video the sample begins, by its metadata.
        clock: of the stored mp4's images and audio.
        structure_ms: by how much the measured opening of the mouth is late.
        structure_r: its correlation with the truth there.
        audio_features: by how many features of 20 ms the audio's features are late.
        latent_frames: by how many frames the decoded latents are late against the stored images.
    """

    start_s: float
    clock: Clock
    structure_ms: int
    structure_r: float
    audio_features: int
    latent_frames: int


def build_config(folder: Path, out: Path, models: ModelPaths, video_vae: str) -> BuildConfig:
    """Return the build of the files in a folder: clips of 33 frames every 20, 64 pixels, with their mp4s."""
    return BuildConfig(
        out=Location(out),
        sources=(SourceConfig(name="truth", folder=Location(folder), pattern="*.*", licence="CC0-1.0"),),
        split=SplitConfig(by="sentence", val=1),
        models=models,
        stages=StageConfig(size=STORED, faces=FACES),
        clips=ClipConfig(frames=33, stride=20, references=2),
        video_vae=Location(video_vae),
        workers=1,
    )


def built_clocks(
    formats: Sequence[FileFormat],
    folder: Path,
    models: ModelPaths,
    video_vae: str = "df-tiny",
    seconds: float = SECONDS,
) -> dict[str, list[SampleClock]]:
    """Write each format with a rendered head, build a dataset of the files, and hold every sample against the truth.

    The file that is held out for validation is stored whole; the others as windows that begin at their start and later.
    """
    videos, scenes = folder / "videos", {}
    videos.mkdir(parents=True)
    for number, made in enumerate(formats):
        scene = Scene.make(40 + number, number % 12, seconds)
        times = made.times(seconds, number)
        name = f"{number:02d}{made.suffix}"
        write_file(videos / name, made, scene, list(scene.images(times, SIDE)), times)
        scenes[f"truth/{name}"] = (made, scene, times)
    out = folder / "set"
    build(build_config(videos, out, models, video_vae), progress=False)
    found: dict[str, list[SampleClock]] = {made.name: [] for made in formats}
    samples = (sample for split in ("train", "val") for sample in iter_samples(out / split))
    for sample in sorted(samples, key=lambda sample: sample.key):
        made, scene, times = scenes[sample.meta.source]
        found[made.name].append(sample_clock(sample, scene, times, video_vae))
    refused = [json.loads(line) for line in (out / "ledger.jsonl").read_text().splitlines()]
    assert all(entry["status"] == "accepted" for entry in refused), refused
    return found


def sample_clock(sample: Sample, scene: Scene, times_F: np.ndarray, video_vae: str) -> SampleClock:
    """Hold one sample with its mp4 against the scene it was made of."""
    meta, tensors = sample.meta, sample.tensors
    assert sample.video is not None
    start = float(meta.provenance["start_s"])  # type: ignore[arg-type]
    box = CropBox(*meta.provenance["crop"])  # type: ignore[misc]
    frames, wave = read_frames(sample.video), read_audio(sample.video)[: samples_for(meta.num_frames)]
    shown = times_F[[stamp_of(frame, box, SIDE) for frame in frames]]
    names = list(meta.truth_names or ())
    mouth = tensors["truth"][:, names.index("mouth_open")].numpy()
    late, r = track_lag(mouth, scene, start)
    return SampleClock(
        start_s=start,
        clock=_clock(shown, start, times_F, wave, scene),
        structure_ms=late,
        structure_r=r,
        audio_features=feature_lag(tensors["audio"].float().numpy(), scene, start),
        latent_frames=latent_lag(tensors["video_latent"], frames, video_vae),
    )


def track_lag(mouth_P: np.ndarray, scene: Scene, start: float) -> tuple[int, float]:
    """Return by how many ms the measured track is late (best correlation with the exact one), and the correlation."""
    instants = start + np.arange(len(mouth_P)) / FPS

    def correlation(ms: int) -> float:
        return float(np.corrcoef(mouth_P, scene.truth(instants - ms / 1000)["mouth_open"])[0, 1])

    curve = {ms: correlation(ms) for ms in FINE_MS}
    best = max(curve, key=lambda ms: curve[ms])
    return best, curve[best]


def feature_lag(features_AD: np.ndarray, scene: Scene, start: float) -> int:
    """Return by how many features of 20 ms those of a sample are late against the scene's own log-mel."""
    encoder = load_audio_encoder("logmel")
    frames = int((scene.seconds) * FPS)
    true = encoder.encode(scene.audio(0.0, samples_for(frames)), frames).float().numpy()
    first = round(2 * FPS * start)
    errors = {}
    for lag in LAGS:
        low, high = first - lag, first - lag + len(features_AD)
        inside = slice(max(0, -low), len(features_AD) - max(0, high - len(true)))
        errors[lag] = float(np.abs(features_AD[inside] - true[max(0, low) : high]).mean())
    return min(errors, key=lambda lag: errors[lag])


@torch.inference_mode()
def latent_lag(latent: torch.Tensor, frames_PSSC: np.ndarray, video_vae: str) -> int:
    """Return by how many frames the decoded latents are late against the images."""
    vae = load_video_vae(video_vae)
    decoded = vae.decode(latent[None].float())[0].permute(0, 2, 3, 1).float().numpy()
    images = frames_PSSC / 255.0
    inner = range(max(LAGS), len(images) - max(LAGS))
    errors = {lag: np.mean([np.square(decoded[p] - images[p - lag]).mean() for p in inner]) for lag in LAGS}
    return min(errors, key=lambda lag: errors[lag])


def measure(folder: Path, models: ModelPaths, seeds: int) -> Section:
    """Measure every format: decoded alone with several seeds, and in a build."""
    rows, figures = [], {}
    built = built_clocks(FORMATS, folder / "build", models)
    for made in FORMATS:
        clocks = [decoded_clock(made, seed, folder) for seed in range(seeds)]
        samples = built[made.name]
        worst = max(clock.worst_ms for clock in clocks)
        audio = max((lag for clock in clocks for lag in clock.audio_ms), key=abs)
        stored = [sample.clock for sample in samples]
        late = [sample.structure_ms for sample in samples]
        figures[made.name] = {
            "decoded_worst_ms": worst, "half_interval_ms": max(clock.bound_ms for clock in clocks),
            "decoded_mean_ms": float(np.mean([clock.mean_ms for clock in clocks])), "decoded_sound_ms": audio,
            "samples": len(samples), "stored_worst_ms": max(clock.worst_ms for clock in stored),
            "stored_sound_ms": max((lag for clock in stored for lag in clock.audio_ms), key=abs),
            "structure_ms": float(np.median(late)), "structure_worst_ms": max(late, key=abs),
            "structure_r": float(np.median([sample.structure_r for sample in samples])),
            "audio_features": max((sample.audio_features for sample in samples), key=abs),
            "latent_frames": max((sample.latent_frames for sample in samples), key=abs),
        }  # fmt: skip
        f = figures[made.name]
        rows.append([
            made.name, f"{worst:.1f} ({f['half_interval_ms']:.1f})", f"{f['decoded_mean_ms']:+.1f}", f"{audio:+.2f}",
            len(samples), f"{f['stored_worst_ms']:.1f}", f"{f['stored_sound_ms']:+.2f}",
            f"{f['structure_ms']:+.0f} ({f['structure_worst_ms']:+d})", f"{f['structure_r']:.2f}",
            f["audio_features"], f["latent_frames"],
        ])  # fmt: skip
    header = (
        "file", "decoded: worst distance of a frame (half the largest interval), ms", "mean, ms", "audio late by, ms",
        "samples built", "stored: worst distance, ms", "audio late by, ms", "mouth late by, ms: median (worst)",
        "correlation", "audio features late by", "latents late by, frames",
    )  # fmt: skip
    return Section("Time", f"{TEXT.format(seeds=seeds)}\n\n{table(header, rows)}", figures)


TEXT = """\
Decoded: {seeds} files each. Built: one file each with a rendered head through `df-data build`, as windows of 33 frames
that begin at the file's first image and later (one file whole). A frame p is held against p / 25 s, plus the
`start_s` of a window; audio against the scene's own by correlation, in halves of the clip; the mouth's opening in
`truth` against the exact one; audio features and decoded latents against the right ones in steps of 20 and 40 ms. The
0.75 ms of files whose audio or image begins late are the file's own: an mp4's edit list counts in milliseconds."""
