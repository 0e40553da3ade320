"""Three corpora of good clips that differ, and which of their people judges are calibrated on.

Rendered people (:mod:`df_data.synth`), GRID (one room, short sentences) and ``talking`` (strangers' videos). Nothing is
calibrated on the people that are reported.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.stages.seen import Seen, seen_files, seen_rendered
from benchmarks.stages.talks import Models
from df_data.build.config import ModelPaths
from df_models.errors import UserError
from df_models.settings import expand_path

CALIBRATION = {
    "rendered": [],
    "GRID": ["brbk7n", "lbax4n", "lbbc2a", "lrwp9a", "lwbsza", "pwij3p", "sbia1a"],
    "talking": ["talk_01", "talk_03", "talk_05"],
}
"""By corpus; GRID's people go by the one clip of each that there is. Reported: all others, of GRID speaker 1. No
rendered ones: their lips follow their audio more closely than anybody's."""
RENDERED, RENDERED_FRAMES = 16, 250
EVERY = 5
"""Every fifth clip of GRID's speaker 1 is read."""


def add_places(parser: argparse.ArgumentParser) -> None:
    """Add the options of where the clips are, and where what was read of them is kept."""
    parser.add_argument("--data", default="${DF_TEST_DATA:-../shared/data}", help="folder with grid/ and talking/")
    parser.add_argument(
        "--cache", type=Path, default=Path("out/seen"), help="where readings are kept (default out/seen)"
    )


def corpora(options: argparse.Namespace) -> dict[str, list[Seen]]:
    """Return the clips of every corpus, read once and then kept."""
    data = expand_path(options.data)
    if not (data / "grid").is_dir() or not (data / "talking").is_dir():
        raise UserError(f"no grid/ and talking/ in {data}; give their folder with --data")
    models = Models.load(ModelPaths())
    grid = [*sorted((data / "grid/others").glob("*.mpg")), *sorted((data / "grid/s1").glob("*.mpg"))[::EVERY]]
    talking = sorted((data / "talking").glob("talk_*.mp4"))
    return {
        "rendered": list(seen_rendered(RENDERED, RENDERED_FRAMES, models, options.cache)),
        "GRID": list(seen_files(grid, "GRID", _grid_person, models, options.cache)),
        "talking": list(seen_files(talking, "talking", lambda path: path.stem, models, options.cache)),
    }


def turn_without_cut(options: argparse.Namespace) -> list[Seen]:
    """Return the one take with a fast turn of the head that is no cut."""
    file = expand_path(options.data) / "talking/turn_without_cut.mp4"
    return list(seen_files([file], "talking", lambda path: path.stem, Models.load(ModelPaths()), options.cache))


def calibration(clips: dict[str, list[Seen]]) -> list[Seen]:
    """Return the clips that judges are calibrated on."""
    return [seen for corpus, held in clips.items() for seen in held if seen.person in CALIBRATION[corpus]]


def reported(clips: dict[str, list[Seen]]) -> dict[str, list[Seen]]:
    """Return the clips of all other people, by corpus."""
    return {name: [seen for seen in held if seen.person not in CALIBRATION[name]] for name, held in clips.items()}


def _grid_person(path: Path) -> str:
    return path.stem if path.parent.name == "others" else "s1"
