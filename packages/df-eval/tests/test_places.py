"""Where an evaluation is written: nothing of the user's is replaced, and one evaluation at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from df_eval.cli import main
from df_eval.reports.output import WRITTEN, check_place
from df_models import DualForce
from df_models.files import mark_owned
from df_models.locks import one_writer


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained run whose dataset is not there: a check of the place comes before anything else."""
    root = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    DualForce.from_preset("quickstart").save_pretrained(str(root / "model"))
    (root / "config.yaml").write_text("data: {root: none}\n")
    return root


@pytest.mark.parametrize("name", WRITTEN)
def test_what_df_eval_did_not_write_is_left_alone(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    mine = tmp_path / name if "." in name else tmp_path / name / "holiday.mp4"
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    assert main([str(run), "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert name in error and "did not write" in error and error.count("\n") == 1
    assert mine.read_text() == "mine" and len(list(tmp_path.iterdir())) == 1
    mark_owned(tmp_path, "df-eval")
    check_place(tmp_path)


def test_two_evaluations_do_not_write_one_place(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with one_writer(run / "eval", "df-eval"):
        assert main([str(run)]) == 2
    assert "another process is writing to" in capsys.readouterr().err
    assert main([str(run)]) == 2
    assert "is not found" in capsys.readouterr().err
    assert not (run / "eval").exists(), "an evaluation that did not begin leaves nothing"


def test_a_milestone_is_measured_into_a_place_of_its_own(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(run), "--checkpoint", "3"]) == 2
    assert "no milestone of step 3; there are none" in capsys.readouterr().err
    (run / "models").mkdir()
    (run / "model").rename(run / "models" / "step-3")  # a run that is not finished
    try:
        with one_writer(run / "eval", "df-eval"):
            assert main([str(run), "--checkpoint", "3"]) == 2
            assert "is not found" in capsys.readouterr().err, "two places, two writers"
        with one_writer(run / "eval" / "step-3", "df-eval"):
            assert main([str(run), "--checkpoint", "3"]) == 2
            assert "another process is writing to" in capsys.readouterr().err
    finally:
        (run / "models" / "step-3").rename(run / "model")


def test_a_place_that_cannot_be_written_is_told_before_measuring(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for out in (tmp_path / "file" / "eval", tmp_path / ("n" * 256)):
        assert main([str(run), "--out", str(out)]) == 2
