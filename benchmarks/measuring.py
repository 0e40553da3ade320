"""What reading and measuring cost beside what nothing can spare, and the memory that they take.

    OMP_NUM_THREADS=1 uv run python benchmarks/measuring.py --faces ../shared/data/grid --weights ../shared/weights

Nothing is generated: a folder with the clips' own videos stands for the system. *Needed* is to decode each true clip
and each of the system's videos once, and one forward pass of every network over each of their frames. *Cost* is
everything that df-eval does with them, but for drawing and writing the report: clips opened, the folder looked through,
every row read and measured at every length, the tables with their intervals. Both are CPU time of this process, taken
in turns in one run.

- `rendered`: people of the synthetic corpus at 64 px, and its exact reader.
- `real` (`--faces`, `--weights`): videos of talking people at 256 px, MediaPipe's landmarker and MobileFaceNet.

Memory is the peak of a process of its own (less what it holds before it opens a clip): by the number of clips, from
four on, whose videos are held for the report's contact sheet; by their length; and by the length of a long generation
(`drift.frames`) of a small untrained model. glibc is told to give freed arrays back at once (`MALLOC_MMAP_THRESHOLD_`).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, peak_memory, reset_peak_memory, table, write_result

from df_eval.clips import EvalClip, StoredVideo, render_clips
from df_eval.config import DriftConfig, EvalConfig, ReadersConfig
from df_eval.reading.readers import FaceReader, SyntheticFaceReader, choose_reader
from df_eval.rows.folders import read_folder
from df_eval.rows.systems import RunSystem, System
from df_eval.suite import Suite
from df_infer.pipeline import Pipeline
from df_infer.rollout import RolloutConfig
from df_models import DualForce
from df_models.cli_support import run_cli
from df_models.crop import CropBox, crop_resize
from df_models.encoders import load_audio_encoder, load_reference_encoder, random_tiny_vae
from df_models.files import check_output_directory
from df_models.media import read_audio, read_video, write_video
from df_models.settings import Location
from df_models.time import samples_for

GOAL = 1.5
REAL_SIZE, RENDERED_SIZE = 256, 64
CROP = 288
"""Side of GRID's images in pixels; the square is cut from the middle of their width."""
SMALL = {
    "dim": 24, "num_layers": 1, "num_heads": 2, "ffn_dim": 32, "structure_width": 16, "structure_layers": 1,
    "structure_heads": 2, "structure_ffn_dim": 32, "fusion_depth": 1, "bridge_width": 16, "bridge_heads": 2,
    "audio_width": 16, "audio_heads": 2, "reference_width": 16, "flame_dim": 0, "video_size": 32,
}  # fmt: skip
MEMORY = {
    "clips of 65 frames, 256 px": [("stored", count, 65) for count in (4, 12, 36)],
    "frames of 2 clips, 256 px": [("stored", 2, frames) for frames in (65, 129, 257)],
    "frames of a long generation, 2 clips, 32 px": [("drift", 2, frames) for frames in (513, 2049, 8193)],
}
"""By what varies: how the clips come, their number, and frames."""


def opened(path: Path, truth: dict[str, np.ndarray]) -> EvalClip:
    """A clip as a dataset's shard gives it: its file is kept, its frames are not."""
    video, wave = StoredVideo.of(path.read_bytes()), read_audio(path)
    wave = np.pad(wave, (0, max(0, samples_for(video.shape[0]) - len(wave))))
    return EvalClip(path.stem, path.stem, video, wave, truth)


def rendered(folder: Path, count: int, frames: int, size: int) -> list[dict[str, np.ndarray]]:
    """Write videos of rendered people; return their true signals."""
    truths = []
    for index, clip in enumerate(render_clips(count, frames, size, seed=0)):
        write_video(folder / f"clip-{index}.mp4", clip.frames_THWC, audio=clip.wave_N)
        truths.append(clip.truth)
    return truths


def real(folder: Path, faces: Path, count: int, frames: int) -> list[dict[str, np.ndarray]]:
    """Write square videos of talking people, of several folders in turn; their signals are not known."""
    by_person = [sorted(person.glob("*.mpg")) for person in sorted(faces.iterdir()) if person.is_dir()]
    chosen = [paths[turn] for turn in range(count) for paths in by_person if turn < len(paths)][:count]
    for index, path in enumerate(chosen):
        images, wave = read_video(path)[0][:frames], read_audio(path)[: samples_for(frames)]
        box = CropBox((images.shape[2] - CROP) / 2, 0.0, float(CROP))
        crops = np.stack([crop_resize(image, box, REAL_SIZE) for image in images])
        write_video(folder / f"clip-{index}.mp4", crops, audio=wave)
    return [{} for _ in chosen]


def evaluate(folder: Path, truths: Sequence[dict[str, np.ndarray]], reader: FaceReader, config: EvalConfig) -> Suite:
    """Everything that df-eval does but for the report."""
    paths = sorted(folder.glob("*.mp4"))
    clips = [opened(path, truth) for path, truth in zip(paths, truths, strict=True)]
    system: System = read_folder("theirs", folder, clips, config.frames, config.baseline)
    suite = Suite([system], reader, clips, config, quiet=True)
    for results in suite.run(config.frames).values():
        results.table(config.seed, config.resamples)
    return suite


def needed(folder: Path, forward: Callable[[np.ndarray], object], longest: int) -> None:
    """Decode the true clip and the system's video of it, and pass both through the networks once."""
    for path in sorted(folder.glob("*.mp4")):
        for _ in range(2):
            forward(read_video(path)[0][:longest])
            read_audio(path)


def cpu_of(do: Callable[[], object]) -> float:
    """CPU seconds of this process, all threads."""
    start = time.process_time()
    do()
    return time.process_time() - start


def cost(name: str, folder: Path, truths: Sequence[dict[str, np.ndarray]], reader: FaceReader, config: EvalConfig,
         forward: Callable[[np.ndarray], object], repeats: int) -> dict[str, Any]:  # fmt: skip
    """Ratios of what is done to what is needed, in turns."""
    longest, suites = max(config.frames), []
    needed(folder, forward, longest)
    ratios, parts = [], []
    for _ in range(repeats):
        done = cpu_of(lambda: suites.append(evaluate(folder, truths, reader, config)))
        least = cpu_of(lambda: needed(folder, forward, longest))
        ratios.append(done / least)
        parts.append((done, least))
    stages = {stage: round(seconds, 2) for stage, seconds in suites[-1].seconds.items()}
    return {
        "readers": name, "clips": len(truths), "frames": list(config.frames), "ratio": float(np.median(ratios)),
        "ratios": ratios, "cost_s": [part[0] for part in parts], "needed_s": [part[1] for part in parts],
        "wall_s_by_stage": stages,
    }  # fmt: skip


def costs(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The cost with either reader."""
    found = []
    with tempfile.TemporaryDirectory() as place:
        exact, folder = SyntheticFaceReader(), Path(place)
        truths = rendered(folder, args.clips, 181, RENDERED_SIZE)
        config = EvalConfig(frames=(33, 129), videos=0)
        found.append(cost("rendered", folder, truths, exact, config, exact._reader.read, args.repeats))
    if args.faces is None or args.weights is None:
        return found
    files = ReadersConfig(
        landmarker=Location(args.weights / "mediapipe_face_landmarker_v2_with_blendshapes.task"),
        identity=Location(f"mobilefacenet:{args.weights / 'mobilefacenet_foamliu.onnx'}"),
    )
    reader = choose_reader("liveportrait", files)
    face = np.zeros((112, 112, 3), np.uint8)

    def forward(frames_THWC: np.ndarray) -> None:
        for frame in frames_THWC:
            reader._landmarker._detect(frame)  # type: ignore[attr-defined]
            reader._identity.run(face)  # type: ignore[attr-defined]

    with tempfile.TemporaryDirectory() as place:
        truths = real(Path(place), args.faces, args.clips, 75)
        config = EvalConfig(frames=(33, 73), videos=0)
        found.append(cost("real", Path(place), truths, reader, config, forward, args.repeats))
    return found


def untrained() -> Pipeline:
    """A small model with random weights."""
    torch.manual_seed(0)
    model = DualForce.from_preset("quickstart", **SMALL).eval()
    rollout = RolloutConfig(steps=2, window=4)
    return Pipeline(model, random_tiny_vae(0), load_audio_encoder("logmel"), load_reference_encoder("patches"), rollout)


def work(kind: str, folder: Path, frames: int) -> int:
    """Measure a folder's clips in this process; return the bytes that this took at most."""
    reader = SyntheticFaceReader()
    reader.read(np.zeros((2, 64, 64, 3), np.uint8))  # libraries are loaded now
    truths: list[dict[str, np.ndarray]] = [{"mouth_open": np.sin(np.arange(999.0))} for _ in folder.glob("*.mp4")]
    system = None
    if kind == "drift":
        config = EvalConfig(frames=(33,), videos=0, resamples=100, drift=DriftConfig(frames=frames))
        pipeline = untrained()
        system = RunSystem("generated", pipeline, pipeline.rollout, config)
    else:
        config = EvalConfig(frames=(frames,), videos=0, resamples=100)
    reset_peak_memory(torch.device("cpu"))
    before = peak_memory("cpu")
    if system is None:
        evaluate(folder, truths, reader, config)
    else:
        paths = sorted(folder.glob("*.mp4"))
        clips = [opened(path, truth) for path, truth in zip(paths, truths, strict=True)]
        Suite([system], reader, clips, config, quiet=True).run(config.frames)
    return peak_memory("cpu") - before


def memory() -> dict[str, list[dict[str, Any]]]:
    """Peaks in processes of their own."""
    found: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as place:
        for what, cases in MEMORY.items():
            for kind, count, frames in cases:
                longest, size = (85, 32) if kind == "drift" else (frames + 52, 256)
                source, folder = Path(place) / f"{longest}-{size}", Path(place) / f"{kind}-{count}-{frames}"
                if not source.exists():
                    source.mkdir()
                    rendered(source, 1, longest, size)
                folder.mkdir(exist_ok=True)
                for index in range(count):
                    shutil.copy(source / "clip-0.mp4", folder / f"clip-{index}.mp4")
                command = [sys.executable, __file__, "--work", kind, str(folder), str(frames)]
                environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**20)}
                done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
                case = {"clips": count, "frames": frames, "bytes": int(done.stdout.split()[-1])}
                found.setdefault(what, []).append(case)
    return found


def report(found: Sequence[dict[str, Any]], peaks: dict[str, list[dict[str, Any]]]) -> str:
    """The result in words and tables."""
    lines = [
        [c["readers"], c["clips"], " and ".join(map(str, c["frames"])), f"{np.median(c['needed_s']):.1f}",
         f"{np.median(c['cost_s']):.1f}", f"{c['ratio']:.2f} ({min(c['ratios']):.2f} to {max(c['ratios']):.2f})"]
        for c in found
    ]  # fmt: skip
    parts = [
        f"Cost over what is needed, CPU time; the goal is {GOAL}. Median of the turns, least and most.",
        table(["readers", "clips", "frames", "needed, s", "cost, s", "ratio"], lines),
    ]
    for case in found:
        stages = ", ".join(f"{name} {seconds:.1f}" for name, seconds in case["wall_s_by_stage"].items())
        parts.append(f"Seconds on the wall by stage in the last turn, {case['readers']}: {stages}.")
    parts.append("Peak memory beyond what libraries and models take:")
    rows = [[what, c["clips"], c["frames"], f"{c['bytes'] / 2**20:.0f} MiB"] for what, cs in peaks.items() for c in cs]
    parts.append(table(["what varies", "clips", "frames", "peak"], rows))
    return "\n\n".join(parts)


def _main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=Path, help="folder with a folder of videos (*.mpg) for each person")
    parser.add_argument("--weights", type=Path, help="folder of the landmarker and of MobileFaceNet")
    parser.add_argument("--clips", type=int, default=16, help="of either kind (default: 16, as of df-eval)")
    parser.add_argument("--repeats", type=int, default=3, help="turns (default: 3)")
    parser.add_argument("--no-memory", action="store_true", help="leave the memory out, and write nothing")
    parser.add_argument("--work", nargs=3, metavar=("KIND", "FOLDER", "FRAMES"), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=RESULTS, help="directory of the result files")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    if args.work is not None:
        print(work(args.work[0], Path(args.work[1]), int(args.work[2])))
        return 0
    check_output_directory(args.out)
    found = costs(args)
    peaks = {} if args.no_memory else memory()
    text = report(found, peaks)
    print(text)
    if not args.no_memory:
        args.preset = "readers"
        figures = {"cost": found, "memory": peaks, "goal": GOAL}
        print(write_result(args.out, "measuring", args, torch.device("cpu"), figures, text))
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(_main, "measuring"))
