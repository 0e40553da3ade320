"""A paper's files: tables that compile, whatever the arms and claims are called, and say what intervals rest on."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from df_eval.reports.videos import write_side_by_side
from df_eval.study.latex import latex
from df_eval.study.paper import write_paper
from df_eval.study.strips import IMAGES, columns_of, shown_videos, why_no_strips
from df_models.media import read_video

STUDY = Path(__file__).parents[3] / "docs" / "results" / "studies" / "bridge-300" / "study.json"
ODD = ("a_b%", "$x & y$", "[both] #1", "~ ^ \\ { } < > |", "σ ≥ 0.5 ± 2 °, naïve", "two\n\nlines", "*\U0001f600")
COMMANDS = {
    "textbackslash", "textasciitilde", "textasciicircum", "textless", "textgreater", "textbar",
    "pm", "geq", "leq", "circ", "sigma", "times",
}  # fmt: skip
"""That a table's cells may use."""


@pytest.fixture
def study() -> dict[str, Any]:
    """A study that was really made, with odd names."""
    told = json.loads(STUDY.read_text())
    for number, (table, odd) in enumerate(zip(told["tables"], ODD * 9)):
        told["arms"][odd] = {"at": {}, "measured": False}
        table["rows"][0] |= {"arm": odd, "left_out": f"left out: {ODD[number % 3]}"}
        table["reference"], table["unit"] = odd, "°/s_%"
        for row in table["rows"]:
            row["value"]["people"] = 7
            if row["difference"] is not None:
                row["difference"]["people"] = 5
    for verdict, odd in zip(told["verdicts"], ODD * 2):
        verdict["hypothesis"]["claim"] = odd
        verdict["found"]["people"] = 5
    return told


def columns(spec: str) -> int:
    """How many columns a tabular's argument declares."""
    return len(re.findall(r"[lcr]|p\{[^{}]*\}", re.sub(r"\\linewidth", "", spec)))


def check(text: str) -> list[list[str]]:
    """The cells of a booktabs table, held against what LaTeX wants of one."""
    body, end, below = text.partition(r"\end{tabular}")
    comment, begin, top, *lines, bottom = body.splitlines()
    for line in below.strip().splitlines():
        remark = re.fullmatch(r"\\par\{\\footnotesize (.*)\\par\}", line)
        assert remark is not None, line
        check_cell(remark[1])
    assert comment.startswith("% ") and (top, bottom, end) == (r"\toprule", r"\bottomrule", r"\end{tabular}")
    found = re.fullmatch(r"\\begin\{tabular\}\{(.*)\}", begin)
    assert found is not None and lines[1] == r"\midrule"
    count, cells = columns(found[1]), []
    for line in [lines[0], *lines[2:]]:
        assert line.endswith(r" \\") and not line.startswith(("[", "*")), line
        row = re.split(r"(?<!\\) & ", line.removesuffix(r" \\"))
        spans = [int(wide[1]) if (wide := re.match(r"\\multicolumn\{(\d+)\}", cell)) else 1 for cell in row]
        assert sum(spans) == count, line
        for cell in row:
            check_cell(cell)
        cells.append(row)
    return cells


def check_cell(cell: str) -> None:
    plain = re.sub(r"\\[&%$#_{}]", "", cell)  # escaped
    assert set(re.findall(r"\\([A-Za-z]+)", plain)) <= COMMANDS, cell
    assert plain.count("$") % 2 == 0 and plain.count("{") == plain.count("}"), cell
    outside = "".join(plain.split("$")[::2])
    assert not set("&%#_~^<>|") & set(outside) and not re.search(r"\\(?![A-Za-z])", outside), cell
    assert all(sign.isascii() or sign.isalpha() for sign in plain), cell


def tables_of(study: dict[str, Any], folder: Path) -> dict[str, list[list[str]]]:
    return {path.name: check(path.read_text()) for path in write_paper(study, folder) if path.suffix == ".tex"}


def test_tables_are_whole_whatever_things_are_called(study: dict[str, Any], tmp_path: Path) -> None:
    found = tables_of(study, tmp_path)
    assert {"verdicts.tex", "lip-sync-129-generated.tex"} <= {*found}
    assert latex("a_b%\\") == r"a\_b\%\textbackslash{}" and latex("σ \U0001f600") == r"$\sigma$ [U+1F600]"
    assert latex("a--b—c''") == r"a-{}-b---c'{}'", "signs of which pdfLaTeX would make one"
    assert "supported if the 95 % interval" in (tmp_path / "protocol.txt").read_text()
    assert (tmp_path / "arms.pdf").read_bytes().startswith(b"%PDF")


def test_tables_say_over_how_many_people_intervals_go(study: dict[str, Any], tmp_path: Path) -> None:
    header, *rows = tables_of(study, tmp_path)["lip-sync-129-generated.tex"]
    assert header[-3:] == ["seeds", "clips", "people"] and header[1].endswith(", 129 frames")
    assert not any("multicolumn" in cell for row in rows for cell in row), "remarks stand below the table"
    assert "footnotesize" in (tmp_path / "lip-sync-129-generated.tex").read_text()
    counts = [row[-1].removeprefix("{}") for row in rows if len(row) == len(header)]
    assert counts[0] == "7" and {*counts[1:]} == {"5"}, "of the paired difference, where there is one"
    verdicts = tables_of(study, tmp_path)["verdicts.tex"]
    assert verdicts[0][-3:-1] == ["seeds", "people"] and verdicts[1][-3:-1] == ["3", "5"]
    for table in study["tables"]:
        for row in table["rows"]:
            for found in filter(None, (row["value"], row["difference"])):
                del found["people"]
    assert tables_of(study, tmp_path)["lip-sync-129-generated.tex"][1][-1] == "--", "a study from before people"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no TeX is installed")
def test_tables_compile(study: dict[str, Any], tmp_path: Path) -> None:
    names = [*tables_of(study, tmp_path)]
    body = "\n\n".join(f"\\input{{{name}}}" for name in names)
    packages = r"\usepackage[T1]{fontenc}\usepackage{booktabs}"
    document = f"\\documentclass{{article}}{packages}\\begin{{document}}{body}\\end{{document}}"
    (tmp_path / "paper.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]


def test_strips_show_the_truth_and_every_arm(study: dict[str, Any], tmp_path: Path) -> None:
    arms = [name for name, arm in study["arms"].items() if arm["measured"]]
    assert shown_videos(study) == {}, "its videos are not here"
    told = why_no_strips(study)
    assert told.startswith("no videos of ") and all(f"{arm} (" in told for arm in arms) and "\n" not in told
    nothing = study | {"arms": {name: arm | {"measured": False} for name, arm in study["arms"].items()}}
    assert why_no_strips(nothing) == "no arm is measured"
    for run in study["runs"]:
        if run["seed"] != 0:
            continue
        run["place"] = str(tmp_path / run["arm"])
        shades = {"truth": 250, "VAE": 120, "generated": 10 * arms.index(run["arm"])}
        videos = {name: np.full((33, 32, 32, 3), shade, np.uint8) for name, shade in shades.items()}
        for name in ("33-a", "9-b", *(["33-only-here"] if run["arm"] == arms[0] else [])):
            write_side_by_side(tmp_path / run["arm"] / "eval" / "videos" / f"{name}.mp4", videos, np.zeros(33 * 640))
    assert {name: [*found] for name, found in shown_videos(study).items()} == {"33-a": arms}
    assert why_no_strips(study) == ""
    written = {path.name for path in write_paper(study, tmp_path / "paper")}
    assert {name for name in written if name.startswith("strip")} == {"strip-33-a.pdf"}
    assert (tmp_path / "paper" / "strip-33-a.pdf").read_bytes().count(b"/Subtype /Image") == IMAGES * (1 + len(arms))


def test_without_a_common_clip_the_reason_is_another(study: dict[str, Any], tmp_path: Path) -> None:
    for run in study["runs"]:
        run["place"] = str(tmp_path / run["key"])
        (tmp_path / run["key"] / "eval" / "videos").mkdir(parents=True)
        (tmp_path / run["key"] / "eval" / "videos" / f"33-{run['arm']}.mp4").touch()
    assert why_no_strips(study) == "no clip is shown in every arm's first run"


def test_a_side_by_side_video_comes_apart_as_it_was_put_together(tmp_path: Path) -> None:
    shades = {"truth": 200, "VAE": 90, "generated": 20}
    made = {name: np.full((5, 32, 32, 3), shade, np.uint8) for name, shade in shades.items()}
    write_side_by_side(tmp_path / "x.mp4", made, np.zeros(5 * 640))
    found = columns_of(read_video(tmp_path / "x.mp4")[0])
    assert [round(float(video[:, 20:-20, 20:-20].mean()), -1) for video in found] == [200, 90, 20]
