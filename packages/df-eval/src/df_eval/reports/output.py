"""Writing an evaluation: metrics.json, per_clip.jsonl, curves.json, table.md, plots, videos and the page."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from tqdm import tqdm

from df_eval.clips import EvalClip
from df_eval.compare import Difference
from df_eval.config import CONTACT_CLIPS, EvalConfig
from df_eval.drift import TITLES, Drift
from df_eval.measure import GENERATED, GROUND_TRUTH, RECONSTRUCTION, Video, kind_of
from df_eval.metrics import SET_SPECS, SPECS
from df_eval.protocols.protocol import DEV_NOTE
from df_eval.reports.codecs import codecs_document, codecs_section
from df_eval.reports.curves import plain_curves
from df_eval.reports.earlier import EARLIER, keep_earlier
from df_eval.reports.goals import Goal
from df_eval.reports.plots import plot_drift, plot_lags, plot_losses, plot_mouths, plot_over_time
from df_eval.reports.report import Report, Section, render
from df_eval.reports.table import (
    INTERVENTIONS_HEADING,
    Table,
    drift_document,
    drift_heading,
    drift_note,
    drift_remarks,
    drift_tables,
    interventions_document,
    interventions_table,
    table_document,
)
from df_eval.reports.videos import write_contact_sheet, write_side_by_side
from df_eval.results import LengthResults, clip_lines
from df_eval.rows.interventions import NOTE, Interventions
from df_eval.rows.sync_codecs import SyncCodecs
from df_infer.run_log import read_log
from df_models.errors import UserError
from df_models.files import atomic_write, check_owned, mark_owned
from df_models.time import samples_for

SCHEMA_VERSION = 2
WRITTEN = ("metrics.json", "per_clip.jsonl", "curves.json", "table.md", "report.html", "videos", "plots", EARLIER)
"""Everything that an evaluation writes into its directory."""
COLUMNS = {GROUND_TRUTH: "truth", RECONSTRUCTION: "VAE"}
"""Names of rows beside the systems', short enough to stand over a video."""


@dataclass(frozen=True)
class EvalOutcome:
    """All results of an evaluation, ready to be written.

    Attributes:
        run: name of the run.
        protocol: facts of the protocol as (name, text) for people; ``facts`` the same as data.
        videos: by length, per clip, row -> video.
        missing: lengths that were asked for and not measured, with the reason.
        metrics_jsonl: the run's training curves; None for several systems.
        differences: of each system from the first; empty for a single run.
        told: what must be read beside the numbers, such as what is wrong with a system's videos, a line each.
        drift: what was measured over a long generation, if one was asked for.
        interventions: what was measured with swapped structure and references, if that was asked for.
        sync_codecs: SyncNet's scores behind codecs, if that was asked for.
        measured_as: hash of all that decides the numbers (`df_eval.reading.measured_as`); empty for several systems.
    """

    run: str
    config: EvalConfig
    clips: Sequence[EvalClip]
    results: dict[int, LengthResults]
    tables: dict[int, Table]
    goals: Sequence[Goal]
    videos: dict[int, list[dict[str, Video]]]
    protocol: list[tuple[str, str]]
    facts: dict[str, Any]
    missing: dict[int, str]
    metrics_jsonl: Path | None
    seconds: dict[str, float]
    differences: Sequence[Difference] = ()
    told: Sequence[str] = ()
    measured_as: str = ""
    drift: Drift | None = None
    interventions: Interventions | None = None
    sync_codecs: SyncCodecs | None = None

    @property
    def warning(self) -> str:
        """What must stand on every page; empty: nothing."""
        return DEV_NOTE if self.config.split == "dev" else ""

    @property
    def shown(self) -> dict[str, str]:
        """The rows whose videos are shown, with the names over them."""
        rows = next(iter(self.tables.values()))
        return COLUMNS | {row: row for row in rows if kind_of(row) == GENERATED}


def metrics_document(outcome: EvalOutcome) -> dict[str, Any]:
    """The content of metrics.json: plain JSON without NaN."""
    lengths = {
        str(frames): {
            "clips": len(outcome.clips),
            "rows": {row: {name: score.to_json() for name, score in cells.items()} for row, cells in table.items()},
        }
        for frames, table in outcome.tables.items()
    }
    return {
        "schema_version": SCHEMA_VERSION,
        "df_eval": metadata.version("df-eval"),
        "run": outcome.run,
        "goals": [goal.to_json() for goal in outcome.goals],
        "differences": [difference.to_json() for difference in outcome.differences],
        "told": list(outcome.told),
        "lengths": lengths,
        "not_measured": {str(frames): reason for frames, reason in outcome.missing.items()},
        "warning": outcome.warning,
        "measured_as": outcome.measured_as,
        "drift": _plain_part(outcome.drift, outcome.config),
        "interventions": _plain_part(outcome.interventions, outcome.config),
        "sync_codecs": _plain_part(outcome.sync_codecs, outcome.config),
        "protocol": outcome.facts,
        "definitions": {name: spec.definition for name, spec in (SPECS | SET_SPECS).items()},
        "seconds": outcome.seconds,
    }


def _plain_part(part: Drift | Interventions | SyncCodecs | None, config: EvalConfig) -> dict[str, Any] | None:
    return None if part is None else part.to_json(config.seed, config.resamples)


def check_place(out: Path) -> None:
    """Refuse a directory that holds something of the user's where an evaluation would be written.

    Raises:
        UserError: naming it.
    """
    check_owned(out, "df-eval", WRITTEN)
    earlier = out / EARLIER
    if earlier.is_symlink() or (earlier.exists() and not earlier.is_dir()):
        raise UserError(f"{earlier} is no directory of df-eval's; move it away, or write elsewhere with --out")


def write_outcome(outcome: EvalOutcome, out: Path, quiet: bool = False) -> Path:
    """Write everything into ``out`` and return the path of report.html. metrics.json comes last.

    An earlier evaluation in the same place is replaced: its metrics.json goes first, so that a half-written
    evaluation never looks whole. Its numbers are kept, where they are others (`df_eval.reports.earlier`).
    """
    check_place(out)
    mark_owned(out, "df-eval")
    document = metrics_document(outcome)
    keep_earlier(out, document)
    (out / "metrics.json").unlink(missing_ok=True)
    for folder in (out / "videos", out / "plots"):
        if folder.is_symlink():
            folder.unlink()  # what it points to is not ours
        elif folder.exists():
            shutil.rmtree(folder)
    checkpoint = outcome.config.checkpoint
    title = f"Evaluation of {outcome.run}" + ("" if checkpoint is None else f", step {checkpoint}")
    if (protocol := outcome.config.protocol) is not None:
        title += f", {protocol.name} ({outcome.config.split})"
    counts = {frames: len(outcome.clips) for frames in outcome.tables}
    report = Report(title, _lead(outcome), outcome.goals, outcome.tables, counts, outcome.protocol)
    report.warning = outcome.warning
    if (found := outcome.interventions) is not None:
        header, lines = interventions_table(found, outcome.config.seed, outcome.config.resamples)
        heading = f"{INTERVENTIONS_HEADING}, {found.frames} frames"
        told = [NOTE, *(f"{row}: {why}" for row, why in found.missing.items())]
        report.sections.append(Section(heading, header, lines, told))
    if outcome.sync_codecs is not None:
        report.sections.append(codecs_section(outcome.sync_codecs, outcome.config.seed, outcome.config.resamples))
    if (drift := outcome.drift) is not None:
        report.sections += _drift_sections(drift, outcome.config)
    report.differences, report.told = outcome.differences, outcome.told
    _write_plots(outcome, out, report)
    _write_videos(outcome, out, report, quiet)
    lines = [json.dumps(line, allow_nan=False) for res in outcome.results.values() for line in clip_lines(res)]
    atomic_write(out / "per_clip.jsonl", "\n".join(lines) + "\n")
    atomic_write(out / "curves.json", json.dumps(plain_curves(outcome.results), allow_nan=False) + "\n")
    atomic_write(out / "table.md", _tables(title, outcome, counts))
    atomic_write(out / "report.html", render(report))
    atomic_write(out / "metrics.json", json.dumps(document, indent=1, allow_nan=False) + "\n")
    return out / "report.html"


def _drift_sections(drift: Drift, config: EvalConfig) -> list[Section]:
    told = [drift_note(drift), *(f"{row}: {why}" for row, why in drift.missing.items())]
    remarks, found = drift_remarks(drift, config.seed, config.resamples), []
    for title, (header, lines) in drift_tables(drift, config.seed, config.resamples).items():
        found.append(Section(f"{drift_heading(drift)}: {title}", header, lines, [*told, *remarks[title]]))
        told = []
    return found


def _tables(title: str, outcome: EvalOutcome, counts: dict[int, int]) -> str:
    document = table_document(title, outcome.tables, outcome.goals, counts, outcome.differences, outcome.told)
    parts: list[tuple[Any, Callable[[Any, int, int], str]]] = [
        (outcome.interventions, interventions_document),
        (outcome.sync_codecs, codecs_document),
        (outcome.drift, drift_document),
    ]
    for part, told in parts:
        if part is not None:
            document += "\n" + told(part, outcome.config.seed, outcome.config.resamples)
    name, _, rest = document.partition("\n\n")
    protocol = "\n".join(f"- {what}: {text}" for what, text in outcome.protocol)
    return (
        "\n\n".join([name, *([f"**{outcome.warning}**"] if outcome.warning else []), rest + "\n## Protocol", protocol])
        + "\n"
    )


def _lead(outcome: EvalOutcome) -> str:
    lengths = " and ".join(f"{frames} frames" for frames in outcome.tables)
    made = "generated from one image and the audio" if not outcome.differences else "of every system"
    text = f"{len(outcome.clips)} held-out clips, {lengths} each, {made}."
    for frames, reason in outcome.missing.items():
        text += f" {frames} frames were not measured: {reason}."
    return text


def _write_plots(outcome: EvalOutcome, out: Path, report: Report) -> None:
    for frames, results in outcome.results.items():
        found: list[tuple[str, str, bool]] = []
        mouths, lags = f"plots/mouth-{frames}.png", f"plots/lag-{frames}.png"
        if plot_mouths(results, out / mouths):
            found.append((mouths, "Mouth opening: true, read from the pixels, decoded from the structure.", True))
        if plot_lags(results, out / lags, outcome.config.max_lag):
            found.append((lags, "Correlation with the true mouth at each lag: mean, standard error.", False))
        for name, label in (
            ("identity", "identity distance to the reference"),
            ("identity_person", "identity distance to the person"),
            ("sharpness", "sharpness"),
        ):
            path = f"plots/{name}-{frames}.png"
            if plot_over_time(results, out / path, name, label):
                found.append((path, f"{label.capitalize()} over time, mean over clips.", False))
        report.plots[f"Curves, {frames} frames"] = found
    if outcome.drift is not None:
        report.plots[drift_heading(outcome.drift)] = _drift_plots(outcome, outcome.drift, out)
    if outcome.metrics_jsonl is not None:
        report.plots["Training"] = _loss_plots(outcome.metrics_jsonl, out)


def _drift_plots(outcome: EvalOutcome, drift: Drift, out: Path) -> list[tuple[str, str, bool]]:
    found = []
    for name, rows in drift.tables(outcome.config.seed, outcome.config.resamples).items():
        path = f"plots/drift-{name}.png"
        plot_drift(rows, drift.rows, out / path, TITLES[name])
        caption = f"{TITLES[name].capitalize()} in windows of {drift.window} frames; bands: 95 % intervals over people."
        found.append((path, caption, False))
    return found


def _loss_plots(metrics_jsonl: Path, out: Path) -> list[tuple[str, str, bool]]:
    lines = [line for line in read_log(metrics_jsonl) if "step" in line]
    found: list[tuple[str, str, bool]] = []
    for path, title, keep in (
        ("plots/loss.png", "Training loss", _is_loss),
        ("plots/loss-sigma-video.png", "Video loss by noise level", lambda name: _is_sigma(name) and "video" in name),
        ("plots/loss-sigma-structure.png", "Structure loss by noise level",
         lambda name: _is_sigma(name) and "structure" in name),
        ("plots/loss-val.png", "Loss of held-out clips", lambda name: name.startswith("val/loss")),
    ):  # fmt: skip
        if plot_losses(lines, out / path, keep, title):
            found.append((path, f"{title}, from the run's metrics.jsonl.", False))
    return found


def _is_sigma(name: str) -> bool:
    return "sigma" in name and not name.startswith("val/")


def _is_loss(name: str) -> bool:
    return (name == "loss" or name.startswith("loss/")) and not _is_sigma(name)


def _write_videos(outcome: EvalOutcome, out: Path, report: Report, quiet: bool) -> None:
    shown = min(outcome.config.videos, len(outcome.clips))
    jobs = [(frames, index) for frames in sorted(outcome.videos, reverse=True) for index in range(shown)]
    for frames, index in tqdm(jobs, desc="writing videos", unit="clip", disable=quiet or not jobs):
        clip, rows = outcome.clips[index], outcome.videos[frames][index]
        path = f"videos/{frames}-{clip.key}.mp4"
        columns = {label: rows[row].frames_THWC for row, label in outcome.shown.items() if row in rows}
        write_side_by_side(out / path, columns, clip.wave_N[: samples_for(frames)])
        report.videos.append((path, f"{clip.key}, {frames} frames: {', '.join(columns)}. With audio."))
    for frames in outcome.videos:
        path = f"plots/contact-{frames}.jpg"
        images = [
            {
                label: rows[row].frames_THWC
                for row, label in outcome.shown.items()
                if row in rows and row != RECONSTRUCTION
            }
            for rows in outcome.videos[frames][:CONTACT_CLIPS]
        ]
        write_contact_sheet(out / path, images)
        report.sheets.append((path, f"{frames} frames: each clip's truth above, what was made below."))
