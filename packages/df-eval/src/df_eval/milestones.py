"""Every milestone of a run measured, and the curves over training that this gives."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from df_eval.config import EvalConfig
from df_eval.dataset import dataset_of
from df_eval.evaluate import evaluate
from df_eval.measure import GENERATED, RECONSTRUCTION
from df_eval.metrics import CATALOG, SETS, SPECS, Score
from df_eval.reading.measured_as import measured_as, measured_there
from df_eval.reading.reader_files import reader_files
from df_eval.reports.markdown import markdown_table
from df_eval.reports.output import WRITTEN
from df_eval.reports.plots import COLOURS, MORE_COLOURS, new_figure, save
from df_eval.reports.table import HEADLINE, cell, long_title
from df_infer.run_dir import RunDir, open_run_dir
from df_models import DualForce
from df_models.errors import UserError
from df_models.files import atomic_write, check_owned, mark_owned
from df_models.locks import one_writer

TEST_CURVES = "These are curves over the list test, which is quoted: do not choose a step by them."
CURVES, PLOTS = "training.json", "training"
SCHEMA_VERSION = 1

Documents = Mapping[int, dict[str, Any]]
"""`metrics.json` of each milestone, by step."""


def evaluate_milestones(
    run_dir: Path, config: EvalConfig, out: Path, say: Callable[[str], None], *, quiet: bool = False
) -> Path:
    """Measure each milestone into ``out/step-N``, unless that was done alike, and write ``out/training.json``.

    Returns:
        The path of training.json.

    Raises:
        UserError: the run has no milestones, or one that is broken, which is told before anything is generated; or as
            :func:`df_eval.evaluate.evaluate`.
    """
    run = RunDir(Path(run_dir))
    steps = list(run.milestone_folders)
    if not steps:
        raise UserError(f"the run {run.root} has no milestones to measure (df-train: checkpoint.milestones)")
    check_owned(out, "df-eval", (*WRITTEN, CURVES, PLOTS))
    _check_whole(run, [step for step in steps if not _is_measured(run, _of_step(config, step), out)], len(steps))
    for step in _missing(run, steps):
        say(f"step {step}: in checkpoint.milestones of {run.config}, and not there; the curves go without it")
    documents = {step: _measured(run, _of_step(config, step), out, say, quiet) for step in steps}
    document = training_document(run.name, documents)
    if document["warning"]:
        say(document["warning"])
    with one_writer(out, "df-eval"):
        mark_owned(out, "df-eval")
        return _write(document, out)


def _of_step(config: EvalConfig, step: int) -> EvalConfig:
    return config.model_copy(update={"checkpoint": step})


def _place(out: Path, config: EvalConfig) -> Path:
    return out / f"step-{config.checkpoint}"


def _is_measured(run: RunDir, config: EvalConfig, out: Path) -> bool:
    """Whether a milestone was measured alike; not one whose files cannot be read, which is told later."""
    there = measured_there(_place(out, config))
    if there is None:
        return False
    try:
        opened = open_run_dir(run.root, config.checkpoint)
        root = dataset_of(opened, config)
        return there == measured_as(opened, config, root, reader_files(config.readers, root))
    except UserError:
        return False


def _check_whole(run: RunDir, steps: Sequence[int], count: int) -> None:
    """Check every milestone to be measured (its files, their hash, the tensors' shapes), so that none is found broken
    after others were measured for hours. Its weights are loaded when its turn comes.

    Args:
        count: of all milestones.

    Raises:
        UserError: naming all that cannot be loaded, each with the reason.
    """
    broken = []
    for step in steps:
        try:
            DualForce.check(run.milestone(step))
        except UserError as error:
            broken.append(f"step {step}: {error}")
    if broken:
        raise UserError(
            f"{run.root}: {len(broken)} of {count} milestones cannot be loaded, so nothing was measured: "
            f"{'; '.join(broken)}. Put back what df-train wrote, or remove those folders of {run.milestones} and "
            "measure the others"
        )


def _missing(run: RunDir, steps: Sequence[int]) -> list[int]:
    """Milestones that training was asked for and that are not there: removed, or not reached."""
    asked = run.section("checkpoint").get("milestones") or []
    return [step for step in asked if step not in steps]


def _measured(run: RunDir, config: EvalConfig, out: Path, say: Callable[[str], None], quiet: bool) -> dict[str, Any]:
    """A milestone's metrics.json, measured now if it must be."""
    place = _place(out, config)
    if _is_measured(run, config, out):
        say(f"step {config.checkpoint}: measured already, alike in everything ({place})")
    else:
        say(f"step {config.checkpoint}: measuring into {place}")
        evaluate([run.root], config, place, quiet=quiet)
    return json.loads((place / "metrics.json").read_text(encoding="utf-8"))


def training_document(run: str, documents: Documents) -> dict[str, Any]:
    """The content of training.json: every metric of the generated videos, and of the reconstruction, by step.

    `curves` is by length, row and metric a list of `{"step", "value", "low", "high", "n", ...}`; `unavailable` by
    length and main metric of the generated videos what there is none of, as reason and its steps.
    """
    first = next(iter(documents.values()))
    names = [spec.name for spec in (*CATALOG, *SETS)]
    curves = {
        frames: {
            row: {name: points for name in names if (points := _points(documents, frames, row, name))}
            for row in (GENERATED, RECONSTRUCTION)
        }
        for frames in first["lengths"]
    }
    return {
        "schema_version": SCHEMA_VERSION,
        "run": run,
        "warning": first["warning"] or (TEST_CURVES if first["protocol"]["config"]["split"] == "test" else ""),
        "protocol": first["protocol"]["protocol"],
        "clips_from": first["protocol"]["clips_from"],
        "steps": list(documents),
        "curves": curves,
        "unavailable": {frames: _unavailable(documents, frames) for frames in first["lengths"]},
    }


def _points(documents: Documents, frames: str, row: str, name: str) -> list[dict[str, Any]]:
    found = ((step, document["lengths"].get(frames)) for step, document in documents.items())
    cells = ((step, length["rows"][row].get(name)) for step, length in found if length is not None)
    return [{"step": step, **score} for step, score in cells if score is not None and score["value"] is not None]


def _unavailable(documents: Documents, frames: str) -> dict[str, dict[str, list[int]]]:
    """The steps at which a main metric of the generated videos has no value, by metric and reason."""
    found: dict[str, dict[str, list[int]]] = {}
    for step, document in documents.items():
        length = document["lengths"].get(frames)
        cells = {} if length is None else length["rows"][GENERATED]
        missing = document["not_measured"].get(frames, "not measured")
        for name in HEADLINE:
            if cells.get(name, {}).get("value") is None:
                reason = cells.get(name, {}).get("reason") or missing
                found.setdefault(name, {}).setdefault(reason, []).append(step)
    return found


def _write(document: dict[str, Any], out: Path) -> Path:
    (out / CURVES).unlink(missing_ok=True)
    (out / PLOTS).mkdir(exist_ok=True)
    for name in HEADLINE:
        plot_training(document, name, out / PLOTS / f"{name}.png")
    atomic_write(out / CURVES, json.dumps(document, indent=1, allow_nan=False) + "\n")
    return out / CURVES


def plot_training(document: Mapping[str, Any], name: str, path: Path) -> bool:
    """Draw a metric over training, a line for each length with its interval; dashed: the VAE's reconstruction.

    Returns:
        Whether there was anything to draw.
    """
    drawn = {frames: rows for frames, rows in document["curves"].items() if rows[GENERATED].get(name)}
    if not drawn:
        path.unlink(missing_ok=True)
        return False
    figure = new_figure(6.2, 3.6)
    axis = figure.subplots()
    for colour, (frames, rows) in zip((COLOURS[GENERATED], *MORE_COLOURS), drawn.items()):
        points = rows[GENERATED][name]
        steps, values = [p["step"] for p in points], [p["value"] for p in points]
        axis.plot(steps, values, "o-", markersize=3.5, color=colour, label=f"{frames} frames")
        sure = [p for p in points if p["low"] is not None and p["high"] is not None]
        at, low, high = ([p[side] for p in sure] for side in ("step", "low", "high"))
        axis.fill_between(at, low, high, color=colour, alpha=0.15, linewidth=0)
        rebuilt = rows[RECONSTRUCTION].get(name, [])
        axis.plot([p["step"] for p in rebuilt], [p["value"] for p in rebuilt], "--", color=colour, linewidth=1)
    spec = SPECS[name]
    told = document["warning"].partition(":")[0]
    axis.set_title(f"{long_title(name)}, 95 % intervals over people" + (f" ({told}: not to be quoted)" if told else ""),
                   fontsize=10, loc="left")  # fmt: skip
    axis.set_xlabel("training step (dashed: the VAE's reconstruction)")
    axis.set_ylabel(f"{long_title(name)} ({spec.unit})" if spec.unit else long_title(name))
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8, frameon=False)
    return save(figure, path)


def training_table(document: Mapping[str, Any]) -> str:
    """The main metrics by step and length, for a terminal, and why a value is not there."""
    lines = []
    for frames, rows in document["curves"].items():
        found = {name: {p["step"]: p for p in rows[GENERATED].get(name, [])} for name in HEADLINE}
        for step in document["steps"]:
            scores = [_score(found[name].get(step)) for name in HEADLINE]
            told = [cell(score, SPECS[name].decimals, score.n) for name, score in zip(HEADLINE, scores, strict=True)]
            lines.append([frames, str(step), *told])
    table = markdown_table(["frames", "step", *map(long_title, HEADLINE)], lines)
    return "\n".join([table, *([""] if any(document["unavailable"].values()) else []), *_reasons(document)])


def _reasons(document: Mapping[str, Any]) -> list[str]:
    """A line for each length, reason and steps, naming the metrics that it keeps from having a value."""
    found: dict[tuple[str, str, tuple[int, ...]], list[str]] = {}
    for frames, metrics in document["unavailable"].items():
        for name, reasons in metrics.items():
            for reason, steps in reasons.items():
                found.setdefault((frames, reason, tuple(steps)), []).append(long_title(name))
    every = tuple(document["steps"])
    return [
        f"- {frames} frames, {_steps(steps) if steps != every else 'every step'}: no {', '.join(names)}: {reason}"
        for (frames, reason, steps), names in found.items()
    ]


def _steps(steps: Sequence[int]) -> str:
    return f"step{'' if len(steps) == 1 else 's'} {', '.join(map(str, steps))}"


def _score(point: Mapping[str, Any] | None) -> Score:
    return Score(None) if point is None else Score(**{key: value for key, value in point.items() if key != "step"})
