"""What a run tells about itself: JSON lines always, Weights & Biases and TensorBoard if asked, a plot of the losses.

The services are reached by accelerate's trackers; their packages are imported when the configuration asks for them.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from accelerate.tracking import GeneralTracker, TensorBoardTracker, WandBTracker

from df_infer.run_dir import RunDir
from df_infer.run_log import RunLog, read_log, smoothed
from df_models.errors import UserError
from df_models.files import atomic_path, atomic_write
from df_train.config import LogConfig
from df_train.processes import peers


class Sink(Protocol):
    """Something that takes the figures of a step."""

    def write(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class Tracked:
    """One of accelerate's trackers as a sink."""

    def __init__(self, tracker: GeneralTracker) -> None:
        self.tracker = tracker
        tracker.start()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self.tracker.log(dict(values), step=step)

    def close(self) -> None:
        self.tracker.finish()


def check_trackers(log: LogConfig) -> None:
    """Look whether the services that the configuration asks for can be reached from here, before any work is done.

    Raises:
        ModuleNotFoundError: the service's package is not installed.
        UserError: Weights & Biases has no API key (where there is a terminal, it asks for one).
    """
    for package, wanted in (("wandb", log.wandb != "off"), ("tensorboard", log.tensorboard)):
        if wanted and importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    if log.wandb == "online" and peers.own_rank() == 0:
        import wandb

        try:
            known = wandb.login()
        except wandb.Error:
            known = False
        if not known:
            raise UserError(
                "log.wandb=online, but there is no key for Weights & Biases; run `wandb login`, set WANDB_API_KEY, or "
                "take log.wandb=offline"
            )


def open_sinks(run: RunDir, log: LogConfig, config: Mapping[str, Any], resume_step: int) -> list[Sink]:
    """The sinks the configuration asks for; JSON lines are always among them."""
    sinks: list[Sink] = [RunLog(run.metrics, resume_step)]
    if log.wandb != "off":
        sinks.append(_open_wandb(run, log, config))
    if log.tensorboard:
        # steps after the one resumed from are taken again, and hidden here
        purge = resume_step + 1 if resume_step else None
        folder = run.tensorboard
        sinks.append(Tracked(TensorBoardTracker(folder.name, logging_dir=folder.parent, purge_step=purge)))
    return sinks


def _open_wandb(run: RunDir, log: LogConfig, config: Mapping[str, Any]) -> Tracked:
    """Weights & Biases, online or offline; a resumed run continues under its id."""
    known = run.wandb_id.read_text(encoding="utf-8").strip() if run.wandb_id.is_file() else None
    tracker = WandBTracker(
        log.wandb_project,
        name=run.name,
        id=known,
        dir=str(run.root),
        mode="offline" if log.wandb == "offline" else "online",
        resume="allow" if log.wandb == "online" else None,
        config=dict(config),
    )
    sink = Tracked(tracker)
    atomic_write(run.wandb_id, tracker.run.id)
    return sink


def plot_losses(metrics: Path, out: Path) -> bool:
    """Draw the loss curves of a `metrics.jsonl` as a PNG; False if there are fewer than two points to draw.

    What was measured on held-out clips is drawn over the same loss of training, `val/loss` by itself.
    """
    lines = read_log(metrics)
    if sum("loss" in line for line in lines) < 2:
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = _panels(lines)
    figure = Figure(figsize=(4.2 * len(panels), 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, (trained, held_out) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels):
        steps, values = _points(lines, trained)
        axis.plot(steps, values, color="#9ecae1", linewidth=1, label="at each log line")
        axis.plot(steps, smoothed(values), color="#08519c", linewidth=2, label="mean around it")
        measured_at, measured = _points(lines, held_out)
        if measured:
            axis.plot(measured_at, measured, color="#d95f0e", linewidth=2, marker=".", label=held_out)
        if steps or measured:
            axis.legend(fontsize=8, frameon=False)
        axis.set_title(trained or held_out)
        axis.set_xlabel("step")
        if min(values + measured, default=0.0) > 0:
            axis.set_yscale("log")
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter("{x:g}")
        axis.grid(alpha=0.3, which="both")
    with atomic_path(out) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    return True


def _panels(lines: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """For each panel the name of training's curve and that of held-out clips; empty: none.

    `val/loss` is no other `loss`: its losses have other weights (`df_train.validation.measure`).
    """
    logged = {name: None for line in lines for name in line if name == "loss" or name.startswith("loss/")}
    first = [name for name in ("loss", "loss/video", "loss/structure", "loss/flame") if name in logged]
    names = first + [name for name in logged if name not in first]
    total = [("", "val/loss")] if any("val/loss" in line for line in lines) else []
    return [("loss", ""), *total, *((name, f"val/{name}") for name in names if name != "loss")]


def _points(lines: Sequence[Mapping[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """Steps and values of a curve, where it has finite ones."""
    points = [(line["step"], line[name]) for line in lines if math.isfinite(line.get(name, math.nan))]
    return [step for step, _ in points], [value for _, value in points]
