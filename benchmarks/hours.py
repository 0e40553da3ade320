"""Hours of each training stage of configs/train/PRESET/, computed from its config: operations over a GPU's rate.

    uv run python benchmarks/hours.py --out docs/results/hours.md

Nothing is measured. Operations are those of the actual shapes with the mask counted (`df_models.model.flops`), and once
more forward where layers are recomputed. The rate is a share of the data sheet's dense bfloat16 peak, `--share`, which
is an assumption: the run's own figure is `time/peak_share` in its log.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from common import table

from df_data.build.config import BuildConfig
from df_models import preset_config
from df_models.attention.masks import FrameLayout
from df_models.cli_support import run_cli
from df_models.files import atomic_write
from df_models.machine import data_sheet_rate
from df_models.model.config import DualForceConfig
from df_models.model.flops import training_flops, video_tokens
from df_models.settings import load_config
from df_models.time import FPS, SPATIAL_STRIDE
from df_train.config import TrainConfig
from df_train.distill.objective import extra_forwards
from df_train.tasks import TASKS

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs" / "train"
CORPUS = ROOT / "configs" / "data" / "hdtf.yaml"
"""The build whose stride, from one stored clip to the next, says how many clips an hour gives."""
PRESETS = ("poc", "dualforce-1.5b", "dualforce-wan")
GPUS = {"A100": "NVIDIA A100-SXM4-80GB", "H100": "NVIDIA H100 80GB HBM3"}
CORPUS_HOURS = 81.0
"""HDTF (about 16 h) and CelebV-HQ (about 65 h)."""
REFERENCE_FEATURES = 257
"""Patches of DINOv2 at 224 pixels, and its class token."""


@dataclass(frozen=True)
class Stage:
    """What a stage takes: operations of all its steps, and its clips, which begin `stride` pixel frames apart."""

    name: str
    steps: int
    batch: int
    operations: float
    stride: int

    @property
    def epochs(self) -> float:
        """Times that each clip of the corpus is seen."""
        return self.steps * self.batch / (CORPUS_HOURS * 3600 * FPS / self.stride)

    def hours(self, gpu: str, count: int, share: float) -> float:
        """Hours on so many GPUs."""
        rate = data_sheet_rate(gpu)
        assert rate is not None
        return self.operations / (count * rate * share) / 3600


def stage_of(path: Path) -> Stage:
    """What a config takes."""
    config = load_config(TrainConfig, path)
    model = preset_config(config.model.preset, **{**TASKS[config.task].model, **config.model.overrides})
    clip = clip_operations(config, model)
    steps, batch = config.optim.steps, config.data.batch_size
    stride = load_config(BuildConfig, CORPUS).clips.stride
    return Stage(f"{path.parent.name}/{path.stem}", steps, batch, float(steps) * batch * clip, stride)


def clip_operations(config: TrainConfig, model: DualForceConfig) -> float:
    """Operations of one clip, recomputing and a teacher's passes counted."""
    frames = config.data.num_frames or 9
    separate = config.task == "distill" or config.objective.history.mode in ("teacher_forcing", "error_recycling")
    layout = FrameLayout.teacher_forcing(frames) if separate else FrameLayout.clip(frames)
    side = model.video_size // SPATIAL_STRIDE
    flame = bool(model.flame_dim) and config.objective.flame.weight > 0
    features = REFERENCE_FEATURES if model.reads_reference else 0
    learnt = training_flops(model, layout, video_tokens(model, side, side), features=features, flame=flame)
    recomputed = 1.0 if config.sharding.recomputed else 0.0
    extra = extra_forwards(config.distill, config.rollout) if config.task == "distill" else 0.0
    return learnt * (1 + (recomputed + extra) / 3)


def rows(share: float) -> list[list[str]]:
    """One row for each stage of the presets."""
    found: list[list[str]] = []
    for preset in PRESETS:
        for path in sorted((CONFIGS / preset).glob("*.yaml")):
            stage = stage_of(path)
            row = [stage.name, f"{stage.steps:,}", f"{stage.batch}", f"{stage.epochs:.1f}", f"{stage.operations:.2e}"]
            for gpu in GPUS.values():
                row += [f"{stage.hours(gpu, 1, share):.0f}", f"{stage.hours(gpu, 8, share):.1f}"]
            found.append(row)
    return found


def main(argv: list[str]) -> int:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=0.4, help="of the data sheet's peak (default: 0.4)")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    args = parser.parse_args(argv)
    head = ["stage", "steps", "clips a step", f"epochs of {CORPUS_HOURS:g} h", "FLOP"]
    for name in GPUS:
        head += [f"h on 1 {name}", f"h on 8 {name}"]
    text = table(head, rows(args.share))
    print(text)
    if args.out is not None:
        told = (
            f"Computed, not measured: `uv run python benchmarks/hours.py`, at {args.share:g} of the data sheet's peak."
        )
        atomic_write(args.out, f"# Hours of training\n\n{told}\n\n{text}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_cli(main, "hours"))
