"""The run directory and its log: what is read, and that nothing depends on where it lies."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from df_infer.run_dir import Changed, RunDir, RunRecord, Trained, open_run, read_record
from df_infer.run_log import RunLog, read_log
from df_models.errors import UserError


def test_every_line_is_on_disk_when_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    sink = RunLog(path, 0)
    sink.write(1, {"loss": 0.1})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"step": 1, "loss": 0.1}]
    sink.close()


def test_resuming_drops_the_steps_that_will_be_taken_again_and_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 3.0}\n{"step": 2, "loss": 2.0}\n{"step": 3, "loss": 1.0}\n{"step": 4, "lo')
    sink = RunLog(path, 2)
    sink.write(3, {"loss": 1.5})
    sink.close()
    assert read_log(path) == [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}, {"step": 3, "loss": 1.5}]


def test_there_is_no_log_before_the_first_line(tmp_path: Path) -> None:
    assert read_log(tmp_path / "metrics.jsonl") == []


def test_the_record_reads_back_and_is_the_proof_of_who_wrote_the_directory(tmp_path: Path) -> None:
    run, record = RunDir(tmp_path / "runs" / "a"), RunRecord("/data/synth", {"train": "12", "val": "34"})
    record = replace(record, changes=(Changed(100, {"optim.lr": (0.002, 1e-5), "profile": (None, {"start": 5})}),))
    assert not run.ours and read_record(run.record) is None
    run.write_record(record)
    assert run.ours and read_record(run.record) == record


@pytest.mark.parametrize(
    "text", ["", "[]", '{"written_by": "another"}', '{"written_by": "df-train", "format": 1, "dataset": {"splits": 3}}']
)
def test_a_file_of_that_name_is_no_proof_yet(tmp_path: Path, text: str) -> None:
    run = RunDir(tmp_path)
    run.record.write_text(text)
    assert not run.ours
    with pytest.raises(UserError, match=r"run\.json"):
        read_record(run.record)


def test_the_dataset_is_looked_for_where_it_was_and_beside_a_moved_run(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "copy" / "runs" / "a")
    places = run.places("data/synth", RunRecord("/was/synth"))
    assert places[:2] == [Path("data/synth"), Path("/was/synth")]
    assert (tmp_path / "copy" / "data" / "synth").resolve() in places
    assert run.places("/data/synth", RunRecord("https://host/data")) == [Path("/data/synth")]


@pytest.mark.parametrize("model", ["model", "models/step-200"])
def test_a_model_in_a_run_has_the_run_s_settings(tmp_path: Path, model: str) -> None:
    folder = tmp_path / model
    folder.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (folder / name).touch()
    (tmp_path / "config.yaml").write_text("rollout: {steps: 3}\nobjective: {structure_tail: 0.2, shorten_audio: 0}\n")
    assert open_run(folder).rollout.steps == 3
    assert open_run(folder).trained == Trained(structure_tail=0.2, shorten_audio=0)
    other = tmp_path / "other"
    folder.rename(other)
    assert open_run(other).rollout.steps != 3 and open_run(other).trained == Trained()
