"""The section on SyncNet's scores behind codecs, of the page and of `table.md`."""

from __future__ import annotations

from df_eval.metrics import SPECS
from df_eval.reports.markdown import count_of, markdown_table
from df_eval.reports.report import Section
from df_eval.reports.table import cell
from df_eval.rows.codec import SOUND, VIDEO
from df_eval.rows.sync_codecs import METRICS, NOTE, SyncCodecs

HEADER = ["row", "through", *(SPECS[name].title for name in METRICS), "N"]


def codecs_section(found: SyncCodecs, seed: int, resamples: int) -> Section:
    """A line for each row and codec, and a column for each of SyncNet's scores."""
    names = VIDEO | SOUND
    lines = [
        [
            row,
            names.get(codec, codec),
            *(cell(scores[name], SPECS[name].decimals, scores[name].n) for name in METRICS),
            count_of(scores[METRICS[0]].n, scores[METRICS[0]].people),
        ]
        for row, codecs in found.scores(seed, resamples).items()
        for codec, scores in codecs.items()
    ]
    heading = f"SyncNet behind codecs, {found.frames} frames"
    return Section(heading, HEADER, lines, [found.missing or NOTE])


def codecs_document(found: SyncCodecs, seed: int, resamples: int) -> str:
    """The same as Markdown."""
    section = codecs_section(found, seed, resamples)
    table = [markdown_table(section.header, section.lines)] if section.lines else []
    return "\n\n".join([f"## {section.heading}", *section.notes, *table]) + "\n"
