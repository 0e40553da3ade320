"""Videos to shards: clip seconds per core second by stage, what a second worker brings, memory against length.

Measured on the inputs of a build config, with its stages and encoders:

- stages: inputs one after the other in this process, on its own CPU time, all threads counted, so that other programs
  do not count. A clip second is a second of the source that an accepted input uses;
- workers: the same inputs through one and through two worker processes, models loaded and warm, results staged as a
  build stages them, by the wall clock, in turn; the machine must be idle otherwise;
- memory: one video and its loops of 2, 4, 8... times its length, each in this process; peak resident memory.

``--storage`` prints the bytes of an hour of clips by tensor, from the format alone, and measures nothing.

    uv run python benchmarks/preprocess.py --config configs/data/grid.yaml --clips 16
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, peak_memory, reset_peak_memory, table, write_result

from df_data.build.config import BuildConfig
from df_data.build.pool.messages import InputResult, MadeSample
from df_data.build.pool.processes import LocalHost
from df_data.build.pool.supervisor import SupervisedPool
from df_data.build.workers import WorkerModels
from df_data.common.processes import one_thread
from df_data.format.sample import DTYPES, SampleMeta, expected_shapes
from df_data.format.shards import tar_members
from df_data.format.staging import Staging
from df_data.sources.listing import Input, list_inputs
from df_models.errors import UserError
from df_models.files import atomic_write, check_output_directory
from df_models.media import read_audio, read_video, write_video
from df_models.settings import load_config
from df_models.time import FPS, samples_for

CPU = torch.device("cpu")
WIDTHS = {
    "embedded": {"audio": 64, "reference_features": (4, 16, 64)},
    "large": {"audio": 1024, "reference_features": (4, 257, 1024)},
}
"""What the format leaves open: log-mel and pooled patches; HuBERT-Large and DINOv2 ViT-L/14 at 224 px (257 tokens)."""
HOURS = (100, 1_000, 10_000)
CORES = (16, 64, 512)
BEGIN, END = "<!-- preprocess: begin -->", "<!-- preprocess: end -->"


def storage(size: int, widths: str, frames: int = 33, references: int = 4) -> dict[str, float]:
    """Return bytes per hour of clips by tensor, tar headers and metadata left out."""
    free = WIDTHS[widths]
    meta = SampleMeta(
        key="k", source="", licence="", identity="", split="train", num_frames=frames, height=size, width=size,
        truth_names=("",) * 7,
    )  # fmt: skip
    clips_per_hour = 3600 * FPS / frames
    found = {}
    for name, shape in expected_shapes(meta).items():
        if name in ("identity_vector", "text_features"):
            continue
        full = free[name] if name == "reference_features" else [
            side if side is not None else (references if index == 0 else free["audio"])
            for index, side in enumerate(shape)
        ]  # fmt: skip
        found[name] = clips_per_hour * DTYPES[name].itemsize * torch.Size(full).numel()
    return found


def storage_table() -> str:
    """Return the bytes of an hour of clips for the sizes and encoders that a user will ask about."""
    kinds = [(size, widths) for size in (256, 512) for widths in WIDTHS]
    columns = [storage(*kind) for kind in kinds]
    rows: list[list[Any]] = [[name, *(f"{column[name] / 1e6:.1f}" for column in columns)] for name in columns[0]]
    rows.append(["all", *(f"{sum(column.values()) / 1e6:.0f}" for column in columns)])
    return table(("MB per hour of clips", *(f"{size} px, {widths} encoders" for size, widths in kinds)), rows)


def take(models: WorkerModels, made: Input) -> tuple[InputResult, Counter[str]]:
    """Take one input through the models; return how it ended and the bytes of its samples by kind of member."""
    written: Counter[str] = Counter()
    for outcome in models.process(made):
        if isinstance(outcome, InputResult):
            return outcome, written
        for name, data in outcome.members.items() if isinstance(outcome, MadeSample) else ():
            written[name.partition(".")[2]] += len(data)
    raise AssertionError("an input without an end")


def measure_stages(config: BuildConfig, inputs: Sequence[Input]) -> dict[str, Any]:
    """Take inputs through one worker's models on the CPU time of this process, once the first has warmed it up."""
    models = WorkerModels(config, clock=time.process_time)
    take(models, inputs[0])
    seconds: Counter[str] = Counter()
    written: Counter[str] = Counter()
    clip_seconds = 0.0
    for made in inputs:
        result, made_bytes = take(models, made)
        written += made_bytes
        seconds.update(result.seconds)  # pyright: ignore[reportCallIssue, reportArgumentType]  # floats
        clip_seconds += result.scores["seconds"] if result.status == "accepted" else 0.0
    models.close()
    if not clip_seconds:
        raise UserError("no input was accepted; there is nothing to measure")
    return {"core_seconds": dict(seconds.most_common()), "clip_seconds": clip_seconds, "bytes": dict(written)}


def pass_through(pool: SupervisedPool, inputs: Sequence[Input], staging: Staging) -> float:
    """Take inputs through a worker pool, stage what comes, and return the seconds of the wall clock."""
    began = time.perf_counter()
    for _, outcome in pool.run(list(inputs)):
        if isinstance(outcome, MadeSample):
            staging.put(outcome.key, tar_members(outcome.members), 0)
    return time.perf_counter() - began


def measure_workers(config: BuildConfig, inputs: Sequence[Input], repeats: int) -> dict[str, float]:
    """Return the seconds of all inputs with one and with two workers, medians of ``repeats`` in turn."""
    with tempfile.TemporaryDirectory() as folder:
        staging = Staging(Path(folder) / "staging")
        pools = {
            number: SupervisedPool(LocalHost(config, WorkerModels), workers=number, timeout_s=3600, retries=0)
            for number in (1, 2)
        }
        found: dict[int, list[float]] = {1: [], 2: []}
        for pool in pools.values():
            pass_through(pool, inputs[:4], staging)
        for _ in range(repeats):
            for number, pool in pools.items():
                found[number].append(pass_through(pool, inputs, staging))
        for pool in pools.values():
            pool.close(now=False)
    one, two = (statistics.median(found[number]) for number in (1, 2))
    return {"one_worker_s": one, "two_workers_s": two, "speed_up": one / two}


def looped(source: Path, target: Path, times: int) -> float:
    """Write a video that shows another so many times; return its seconds."""
    frames, _ = read_video(source)
    samples = samples_for(len(frames))
    wave = np.resize(read_audio(source)[:samples], samples)
    written = write_video(target, (frame for _ in range(times) for frame in frames), audio=np.tile(wave, times))
    return written / FPS


def measure_memory(config: BuildConfig, made: Input, doublings: int) -> list[tuple[float, float]]:
    """Return (seconds of video, peak resident MiB) for one input and its loops, warmed up by the input itself."""
    models, found = WorkerModels(config), []
    take(models, made)
    with tempfile.TemporaryDirectory() as folder:
        for power in range(doublings):
            path = Path(folder) / f"{power}.mp4"
            seconds = looped(made.path, path, 2**power)
            reset_peak_memory(CPU)
            take(models, replace(made, path=path, alignment=None))
            found.append((seconds, peak_memory(CPU) / 2**20))
    models.close()
    return found


def plan_table(rate: float) -> str:
    """Return what so many hours of source take at ``rate`` clip seconds per core second."""
    rows = []
    for hours in HOURS:
        core_hours = hours / rate
        rows.append((f"{hours:,} h", f"{core_hours:,.0f}", *(f"{core_hours / cores / 24:,.2f}" for cores in CORES)))
    return table(("source video", "core hours", *(f"days on {cores} cores" for cores in CORES)), rows)


def write_between_marks(path: Path, text: str) -> None:
    """Replace what stands between the two marks of a document."""
    before, rest = path.read_text().split(BEGIN)
    atomic_write(path, f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.split(END)[1]}")


def report(args: argparse.Namespace, figures: dict[str, Any]) -> None:
    """Print and write what was measured."""
    stages, workers = figures["stages"], figures["workers"]
    total = sum(stages["core_seconds"].values())
    rows = [
        (name, f"{seconds / total:.1%}", f"{stages['clip_seconds'] / seconds:.2f}" if seconds > 0.01 * total else "")
        for name, seconds in stages["core_seconds"].items()
    ]
    rows.append(("all", "100 %", f"{stages['clip_seconds'] / total:.3f}"))
    hours = stages["clip_seconds"] / 3600
    stored = ", ".join(f"{name} {size / hours / 1e6:.0f}" for name, size in stages["bytes"].items())
    lines = [
        table(("stage", "share of the core time", "clip seconds per core second"), rows),
        f"\nMB in shards per hour of source video: {stored}.",
        f"\nTwo workers are {workers['speed_up']:.2f} times as fast as one.\n",
        table(("seconds of video", "peak MiB"), [(f"{s:.0f}", f"{m:.0f}") for s, m in figures["memory"]]),
    ]
    lines += ["", plan_table(stages["clip_seconds"] / total)]
    text = "\n".join(lines)
    print(text)
    written = write_result(args.out, "preprocess", args, CPU, figures, text)
    print(written)
    if args.document is not None:
        write_between_marks(args.document, f"{text}\n\nMeasured: `benchmarks/results/{written.name}`.")


def main() -> None:
    """Measure and write the result files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/data/grid.yaml"), help="a build config")
    parser.add_argument("--clips", type=int, default=16, help="inputs that are measured (default: 16)")
    parser.add_argument("--repeats", type=int, default=3, help="passes with one and two workers (default: 3)")
    parser.add_argument("--doublings", type=int, default=5, help="lengths of video for the memory (default: 5)")
    parser.add_argument("--storage", action="store_true", help="only print the arithmetic of the storage")
    parser.add_argument("--document", type=Path, help=f"also write the tables into this file, between {BEGIN} and end")
    parser.add_argument("--out", type=Path, default=RESULTS, help="directory of the result files")
    parser.add_argument("overrides", nargs="*", help="dotted overrides of the config, such as stages.size=256")
    args = parser.parse_args()
    if args.storage:
        print(storage_table())
        return
    check_output_directory(args.out)
    one_thread()
    config = load_config(BuildConfig, args.config, args.overrides)
    args.preset = f"{args.config.stem}-{config.stages.size}px"
    inputs = list_inputs(config.sources, config.split)[: args.clips]
    figures = {
        "stages": measure_stages(config, inputs),
        "workers": measure_workers(config, inputs, args.repeats),
        "memory": measure_memory(config, inputs[0], args.doublings),
    }
    report(args, figures)


if __name__ == "__main__":
    main()
