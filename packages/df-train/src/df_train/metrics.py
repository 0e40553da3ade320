"""What a run tells about itself: JSON lines always, Weights & Biases and TensorBoard if asked, a plot of the losses.

Nothing is opened on import; the optional packages are imported when the configuration asks for them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from df_infer.run_dir import RunDir
from df_infer.run_log import RunLog, read_log
from df_models.files import atomic_path, atomic_write
from df_train.config import LogConfig


class Sink(Protocol):
    """Something that takes the figures of a step."""

    def write(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class WandbSink:
    """Weights & Biases, online or offline; a resumed run continues under its id."""

    def __init__(self, run: RunDir, log: LogConfig, config: Mapping[str, Any]) -> None:
        import wandb

        marker = run.wandb_id
        known = marker.read_text(encoding="utf-8").strip() if marker.is_file() else None
        self._run = wandb.init(
            project=log.wandb_project,
            name=run.name,
            id=known,
            dir=str(run.root),
            mode="offline" if log.wandb == "offline" else "online",
            resume="allow" if log.wandb == "online" else None,
            config=dict(config),
        )
        atomic_write(marker, self._run.id)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


class TensorBoardSink:
    """TensorBoard event files in `tensorboard/`; steps after the one resumed from are hidden."""

    def __init__(self, run: RunDir, resume_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        purge = resume_step + 1 if resume_step else None
        self._writer = SummaryWriter(str(run.tensorboard), purge_step=purge)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


def open_sinks(run: RunDir, log: LogConfig, config: Mapping[str, Any], resume_step: int) -> list[Sink]:
    """The sinks the configuration asks for; JSON lines are always among them."""
    sinks: list[Sink] = [RunLog(run.metrics, resume_step)]
    if log.wandb != "off":
        sinks.append(WandbSink(run, log, config))
    if log.tensorboard:
        sinks.append(TensorBoardSink(run, resume_step))
    return sinks


def plot_losses(metrics: Path, out: Path) -> bool:
    """Draw the loss curves of a `metrics.jsonl` as a PNG; False if there are fewer than two points to draw."""
    lines = read_log(metrics)
    if len(lines) < 2:
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = [name for name in ("loss", "loss/video", "loss/structure", "loss/flame") if name in lines[-1]]
    names += [name for name in lines[-1] if name.startswith("loss/") and name not in names]
    figure = Figure(figsize=(4.2 * len(names), 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names):
        points = [(line["step"], line[name]) for line in lines if math.isfinite(line.get(name, math.nan))]
        steps, values = [p[0] for p in points], [p[1] for p in points]
        axis.plot(steps, values, color="#9ecae1", linewidth=1)
        axis.plot(steps, _smooth(values), color="#08519c", linewidth=2)
        axis.set_title(name)
        axis.set_xlabel("step")
        if values and min(values) > 0:
            axis.set_yscale("log")
        axis.grid(alpha=0.3, which="both")
    with atomic_path(out) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    return True


def _smooth(values: list[float], factor: float = 0.8) -> list[float]:
    """The exponential average without the pull of its start (bias correction as in Adam)."""
    smoothed: list[float] = []
    total = weight = 0.0
    for value in values:
        total = factor * total + (1.0 - factor) * value
        weight = factor * weight + (1.0 - factor)
        smoothed.append(total / weight)
    return smoothed
