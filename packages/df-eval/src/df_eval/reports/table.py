"""The tables as Markdown: the goals, a headline, and every metric by group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from df_eval.compare import Difference
from df_eval.drift import DECIMALS, TITLES, Drift
from df_eval.measure import GENERATED, kind_of
from df_eval.metrics import CATALOG, GROUPS, SETS, MetricSpec, Score, SetSpec
from df_eval.metrics.catalog import SPECS
from df_eval.reports.goals import Goal
from df_eval.reports.markdown import NOTHING, count_of, markdown_table
from df_eval.rows.interventions import NOTE, QUANTITIES, SIDES, Interventions

HEADLINE = (
    "lip_sync",
    "best_lag",
    "identity_distance",
    "identity_ratio",
    "identity_person_ratio",
    "motion_ratio",
    "psnr",
    "presence",
)

LONG_TITLES = {
    "identity_ratio": "identity distance, last / first",
    "identity_person_ratio": "identity distance to person, last / first",
}
"""Of columns whose group is not told above them."""
INTERVENTIONS_HEADING = "Which stream carries what"

Table = dict[str, dict[str, Score]]
Spec = MetricSpec | SetSpec


def cell(score: Score, decimals: int, clips: int) -> str:
    """``0.81 [0.75, 0.86]``, with N where it is not all clips; a dash where there is no value."""
    if score.value is None:
        return NOTHING
    text = f"{score.value:.{decimals}f}"
    if score.low is not None and score.high is not None:
        text += f" [{score.low:.{decimals}f}, {score.high:.{decimals}f}]"
    counted = clips_of(score, clips)
    return f"{text} ({counted})" if counted else text


def clips_of(score: Score, clips: int) -> str:
    """``N 3``, where a value is not of all clips, and of how many people those are, if they are fewer."""
    return "" if score.n == clips else f"N {count_of(score.n, score.people)}"


def people_of(table: Table) -> int:
    """Of the clips of a table; 0 if that is not known."""
    return max((score.people for cells in table.values() for score in cells.values()), default=0)


def clips_in(table: Table, clips: int) -> str:
    """``16 clips``, ``16 clips, 4 people``."""
    number, *people = count_of(clips, people_of(table)).split(", ")
    return ", ".join([f"{number} clips", *people])


def metric_table(table: Table, specs: Sequence[Spec], clips: int) -> str:
    """Rows by metrics, for one length."""
    header = ["row", "N", *[f"{spec.title} ({spec.unit})" if spec.unit else spec.title for spec in specs]]
    all_clips = count_of(clips, people_of(table))
    counts = {row: max((score.n for score in cells.values()), default=0) for row, cells in table.items()}
    told = {row: all_clips if own == clips else f"{own} of {all_clips}" for row, own in counts.items()}
    lines = [[row, told[row], *[cell(table[row][s.name], s.decimals, clips) for s in specs]] for row in table]
    return markdown_table(header, lines)


def headline_table(table: Table, clips: int) -> str:
    """The few columns that say most."""
    return metric_table(table, headline_specs(), clips)


def headline_specs() -> list[MetricSpec]:
    """The main metrics, with titles that stand alone."""
    return [replace(SPECS[name], title=long_title(name)) for name in HEADLINE]


def long_title(name: str) -> str:
    """A metric's title where its group is not told above it."""
    return LONG_TITLES.get(name, SPECS[name].title)


def goals_table(goals: Sequence[Goal]) -> str:
    """Every goal at every length: target, reached value with its interval, and whether it is met; below it a line for
    each of which more is to be told."""
    lines = [
        [goal.name, str(goal.frames), goal.target, cell(goal.score, 3, goal.score.n), own_truth(goal), verdict(goal)]
        for goal in goals
    ]
    table = markdown_table(["goal", "frames", "target", "reached [95 % interval]", "the truth's own", "met"], lines)
    notes = [f"- {goal.name}, {goal.frames} frames: {goal.told()}" for goal in goals if goal.told()]
    return table + ("\n\n" + "\n".join(notes) if notes else "")


def own_truth(goal: Goal) -> str:
    """What the ground truth itself reaches."""
    return NOTHING if goal.truth is None else f"{goal.truth:.3f}"


def verdict(goal: Goal) -> str:
    """``yes``, ``no`` or ``unavailable``."""
    return "unavailable" if goal.passed is None else ("yes" if goal.passed else "no")


def differences_table(differences: Sequence[Difference]) -> str:
    """The main metrics' paired differences from the first system, one line for each metric, length and system."""
    lines = [
        [
            long_title(d.metric),
            str(d.frames),
            d.row,
            difference_cell(d),
            count_of(d.found.clips, d.found.people),
            p_cell(d.p),
            p_cell(d.p_holm),
        ]
        for d in differences
        if d.metric in HEADLINE
    ]
    minus = f"minus {differences[0].reference} [95 %]" if differences else "difference"
    return markdown_table(["metric", "frames", "system", minus, "N", "p", "p (Holm)"], lines)


def difference_cell(difference: Difference) -> str:
    """``+0.03 [0.01, 0.05]``."""
    found, decimals = difference.found, SPECS[difference.metric].decimals
    assert found.value is not None
    text = f"{found.value:+.{decimals}f}"
    return text if found.low is None else f"{text} [{found.low:+.{decimals}f}, {found.high:+.{decimals}f}]"


def p_cell(p: float | None) -> str:
    """A p value."""
    return NOTHING if p is None else ("< 0.001" if p < 0.001 else f"{p:.3f}")


def comparison_note(differences: Sequence[Difference]) -> str:
    """What the differences and their p values are."""
    family = sum(d.p_holm is not None for d in differences)
    return (
        "Differences are paired, over the clips that both have: bootstrap over people, value ± t × standard error. "
        f"p is of no difference; Holm's is adjusted for the {family} comparisons of the main metrics that have one. A "
        "difference that is the same in every clip has none: there is no error to test it with. "
        "The differences of the other metrics stand in metrics.json with intervals alone."
    )


def groups_with_values(table: Table) -> list[tuple[str, list[Spec]]]:
    """Group titles with those of their metrics that have a value in at least one row."""
    shown: list[Spec] = [
        spec for spec in (*CATALOG, *SETS) if any(cells[spec.name].value is not None for cells in table.values())
    ]
    grouped = [(title, [spec for spec in shown if spec.group == group]) for group, title in GROUPS.items()]
    return [(title, specs) for title, specs in grouped if specs]


def remarks(table: Table, specs: Sequence[Spec]) -> list[str]:
    """What must be read beside the numbers of distances of distributions: how few clips they rest on."""
    names = [spec.name for spec in specs if isinstance(spec, SetSpec)]
    found = [cells[name].reason for name in names for cells in table.values() if cells[name].value is not None]
    return list(dict.fromkeys(reason for reason in found if reason))


def unavailable_lines(table: Table) -> list[tuple[str, str]]:
    """Metrics without a value in any row, with the reason."""
    made = next(cells for row, cells in table.items() if kind_of(row) == GENERATED)
    return [
        (LONG_TITLES.get(spec.name, spec.title), made[spec.name].reason)
        for spec in (*CATALOG, *SETS)
        if all(cells[spec.name].value is None for cells in table.values())
    ]


def drift_heading(drift: Drift) -> str:
    """Of the section on a long generation."""
    return f"A long generation: {drift.frames} frames ({drift.frames / 25:g} s)"


def drift_note(drift: Drift) -> str:
    """What the tables of a long generation hold."""
    return (
        f"Windows of {drift.window} frames, by the frame after which they end; systems go on with other clips' speech."
    )


def drift_tables(drift: Drift, seed: int, resamples: int) -> dict[str, tuple[list[str], list[list[str]]]]:
    """By metric, header and lines: a line for each row, and a column for each frame after which windows end."""
    return {
        TITLES[name]: (
            ["row", *map(str, drift.ends)],
            [
                [row, *(drift_cell(name, found[end]) if end in found else NOTHING for end in drift.ends)]
                for row, found in rows.items()
            ],
        )
        for name, rows in drift.tables(seed, resamples).items()
    }


def drift_cell(name: str, score: Score) -> str:
    """One value of a long generation."""
    return cell(score, DECIMALS.get(name, 3), score.n)


def drift_remarks(drift: Drift, seed: int, resamples: int) -> dict[str, list[str]]:
    """By metric, what must be read beside its numbers: how few clips a distance of distributions rests on."""
    found = {}
    for name, rows in drift.tables(seed, resamples).items():
        reasons = [score.reason for scores in rows.values() for score in scores.values() if score.reason]
        found[TITLES[name]] = list(dict.fromkeys(reasons))
    return found


def drift_document(drift: Drift, seed: int, resamples: int) -> str:
    """The section on a long generation."""
    parts = [f"## {drift_heading(drift)}", drift_note(drift)]
    for title, (header, lines) in drift_tables(drift, seed, resamples).items():
        parts += [f"### {title}", markdown_table(header, lines)]
        parts += [f"- {remark}" for remark in drift_remarks(drift, seed, resamples)[title]]
    parts += [f"- {row}: {why}" for row, why in drift.missing.items()]
    return "\n\n".join(parts) + "\n"


def interventions_table(found: Interventions, seed: int, resamples: int) -> tuple[list[str], list[list[str]]]:
    """Header and lines: a line for each row and quantity, and a column for each side."""
    lines = [
        [
            row,
            QUANTITIES[name],
            *(cell(sides[side], 3, sides[side].n) for side in SIDES),
            count_of(sides["own"].n, sides["own"].people),
        ]
        for row, quantities in found.scores(seed, resamples).items()
        for name, sides in quantities.items()
    ]
    return ["row", "read from the pixels", "to its own truth", "to the other's", "share of the other", "N"], lines


def interventions_document(found: Interventions, seed: int, resamples: int) -> str:
    """The section on interventions."""
    parts = [f"## {INTERVENTIONS_HEADING}, {found.frames} frames", NOTE]
    parts.append(markdown_table(*interventions_table(found, seed, resamples)))
    parts += [f"- {row}: {why}" for row, why in found.missing.items()]
    return "\n\n".join(parts) + "\n"


def table_document(
    title: str,
    tables: dict[int, Table],
    goals: Sequence[Goal],
    clips: dict[int, int],
    differences: Sequence[Difference] = (),
    told: Sequence[str] = (),
) -> str:
    """The whole of table.md.

    Args:
        told: what must be read beside the numbers, such as what is wrong with a system's videos.
    """
    parts = [f"# {title}"]
    if goals:
        parts += ["## Goals", goals_table(goals)]
    if differences:
        parts += ["## Differences", differences_table(differences), comparison_note(differences)]
    if told:
        parts += ["## Remarks", "\n".join(f"- {line}" for line in told)]
    for frames, table in tables.items():
        parts.append(f"## {frames} frames ({frames / 25:.2f} s), {clips_in(table, clips[frames])}")
        for group, specs in groups_with_values(table):
            parts += [f"### {group}", metric_table(table, specs, clips[frames])]
            if found := remarks(table, specs):
                parts.append("\n".join(f"- {remark}" for remark in found))
        missing = unavailable_lines(table)
        if missing:
            parts += ["### Unavailable", "\n".join(f"- {name}: {reason}" for name, reason in missing)]
    parts.append(
        "Values are pooled over the clips; brackets hold the bootstrap 95 % interval over people (over clips, where "
        "all are of one person)."
    )
    return "\n\n".join(parts) + "\n"
