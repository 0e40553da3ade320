"""Measure every stage against known truth: ``uv run python -m benchmarks.stages.report --out docs/results/stages.md``.

Needs the face detector and the landmarker of the stages (``DF_TEST_WEIGHTS``), and GRID's clips (``DF_TEST_DATA``) for
the rows of real faces.
"""

from __future__ import annotations

import argparse
import functools
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.stages import (
    audio,
    colours,
    cost,
    cover,
    cuts,
    faces,
    intake,
    one_take,
    samples,
    soft,
    sync,
    timing,
    turning,
    who,
)
from benchmarks.stages.corpora import add_places, calibration, corpora, reported, turn_without_cut
from benchmarks.stages.tables import Section
from benchmarks.stages.talks import Models, Talk, grid_talks, rendered_talks
from df_data.build.config import ModelPaths
from df_data.stages.decode import decode_clip
from df_data.stages.identity import FaceIdentity
from df_models.cli_support import run_cli
from df_models.errors import UserError
from df_models.files import atomic_write, check_output
from df_models.settings import expand_path

OUT = Path("docs/results/stages.md")
IDENTITY = "${DF_TEST_WEIGHTS:-../shared/weights}/mobilefacenet_foamliu.onnx"
INTRODUCTION = """\
# The stages of df-data against known truth

Faults of known size are put into clips in which nothing is wrong: rendered heads, whose every state is known exactly
({rendered} people, 3 s each, 256 px), and real ones ({grid}). The stages run with their defaults, two limits
on the face apart (64 px at least, 60 % of its crop within the image). *To be found* counts the cases
with the fault, *to be left alone* those without; precision is the share of the alarms that are right, recall the share
of the faults that are found. No limit was moved after its table: what misses its mark stands here as it was measured.

Sections that name `talking` have three corpora that differ: 16 rendered people of 10 s, GRID, and strangers' videos.
Lips and audio are fitted on some people (`benchmarks/stages/corpora.py`) and reported on the others. The limits of
transitions, jump cuts and stillness were chosen after a look at clips of both, that of lips at the edge after a look at
such edits of both: those rates flatter a little, and whom a reported person becomes there may be one of the others
(GRID reports one speaker). Transitions stand near the middle of their clips; one within about
0.7 s of a stretch's end is not found by appearance, and a build cuts a stretch every 10 s. `talking` reports three
people: of its 7 windows of 9 s and 2 of 10 s no rate of 1 % can be told.

Command: `uv run python -m benchmarks.stages.report`; the numbers for programs are in `stages.json`.
"""


def sections(
    models: Models, grid: Path | None, options: argparse.Namespace, folder: Path
) -> dict[str, Callable[[], Section]]:
    """Return what makes each section, by the name of the measurement."""
    seen = functools.cache(lambda: corpora(options))
    talks = functools.cache(lambda: read_talks(models, grid, options.clips))
    speeches = audio.voices(options.voices)
    return {
        "time": lambda: timing.measure(folder, ModelPaths(), options.files),
        "turning": lambda: turning.measure(talks(), models, folder),
        "colours": lambda: colours.measure(_images(talks(), grid), folder),
        "intake": lambda: intake.measure(seen(), folder),
        "sync": lambda: sync.measure(reported(seen()), calibration({"GRID": seen()["GRID"]})),
        "cuts": lambda: cuts.measure(talks()),
        "one take": lambda: one_take.measure(reported(seen()), seen(), turn_without_cut(options)),
        "who": lambda: who.measure(
            reported(seen()), seen(), turn_without_cut(options), FaceIdentity(expand_path(IDENTITY))
        ),
        "samples": lambda: samples.measure(reported(seen()), models),
        "faces": lambda: faces.measure(talks(), models),
        "cover": lambda: cover.measure(talks(), models),
        "soft": lambda: soft.measure(talks(), models, options.people),
        "noise": lambda: audio.noise_section(
            {"synthetic": [speech.wave for speech in speeches]}
            | {name: [talk.wave for talk in clips] for name, clips in talks().items() if name == "GRID"}
        ),
        "voice": lambda: audio.voice_section(speeches, grid, 4 * options.clips),
        "cost": lambda: cost.measure(reported(seen())["talking"]),
    }


def read_talks(models: Models, grid: Path | None, count: int) -> dict[str, list[Talk]]:
    """Return the clips of 3 s that most sections are measured on."""
    talks = {"rendered": rendered_talks(count, models)}
    return talks if grid is None else talks | {"GRID": grid_talks(grid, count, models)}


def _images(talks: dict[str, list[Talk]], grid: Path | None) -> dict[str, list[np.ndarray]]:
    crops = {name: [talk.frames for talk in clips] for name, clips in talks.items()}
    return crops | ({"talking": talking(grid.parent / "talking")} if grid is not None else {})


def talking(folder: Path) -> list[np.ndarray]:
    """The first two seconds of each video of a folder, uint8 ``[T, H, W, 3]``, at a third of its size; none without."""
    clips = [decode_clip(path, max_seconds=2.0).frames for path in sorted(folder.glob("*.mp4"))]
    thirds = [clip[:, ::3, ::3] for clip in clips]
    return [np.ascontiguousarray(t[:, : t.shape[1] // 4 * 4, : t.shape[2] // 4 * 4]) for t in thirds]


def _main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stages.report", description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT, help="Markdown to write, and .json beside it")
    parser.add_argument("--grid", default="${DF_TEST_DATA:-../shared/data}/grid", help="GRID's clips, or 'none'")
    add_places(parser)
    parser.add_argument("--clips", type=int, default=12, help="rendered people, and clips of GRID (default 12)")
    parser.add_argument("--people", type=int, default=8, help="people drawn anew for lips and yaw (default 8)")
    parser.add_argument("--voices", type=int, default=30, help="synthetic voices (default 30)")
    parser.add_argument("--files", type=int, default=3, help="files of each format that are decoded (default 3)")
    parser.add_argument("--only", nargs="*", help="measure only these anew; the others stay as they stand in --out")
    options = parser.parse_args(argv)
    for path in (options.out, options.out.with_suffix(".json")):
        check_output(path)
    grid = None if options.grid == "none" else expand_path(options.grid)
    if grid is not None and not grid.is_dir():
        raise UserError(f"no folder {grid}; give GRID's with --grid, or --grid none to leave the real clips out")
    models = Models.load(ModelPaths())
    record = options.out.with_suffix(".json")
    found = json.loads(record.read_text()) if options.only and record.is_file() else {}
    with tempfile.TemporaryDirectory(prefix="df-truth-") as folder:
        made = sections(models, grid, options, Path(folder))
        for name, make in made.items():
            if not options.only or name in options.only:
                found[name] = asdict(make())
                print(f"## {found[name]['title']}\n\n{found[name]['text']}\n", flush=True)
                ordered = {key: found[key] for key in made if key in found}
                atomic_write(record, json.dumps(ordered, indent=1, default=float) + "\n")
                atomic_write(options.out, document(ordered, options.clips, real=grid is not None))


def document(found: dict[str, dict[str, Any]], clips: int, *, real: bool) -> str:
    """Return the report's Markdown from its sections by name."""
    grid = f"{clips} clips of GRID, 8 speakers" if real else "none in this run"
    text = INTRODUCTION.format(rendered=clips, grid=grid)
    body = "\n\n".join(f"## {section['title']}\n\n{section['text']}" for section in found.values())
    return f"{text}\n{body}\n"


def main(argv: list[str] | None = None) -> int:
    """Entry point."""
    return run_cli(_main, "truth.report", argv)


if __name__ == "__main__":
    raise SystemExit(main())
