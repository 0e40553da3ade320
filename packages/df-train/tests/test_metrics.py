from __future__ import annotations

import json
from pathlib import Path

import pytest

from df_infer.run_dir import RunDir
from df_train.config import LogConfig
from df_train.figures.metrics import _panels, _points, open_sinks, plot_losses


def test_the_plot_is_a_png_and_needs_two_points(tmp_path: Path):
    path, out = tmp_path / "metrics.jsonl", tmp_path / "loss.png"
    path.write_text('{"step": 1, "loss": 3.0, "loss/video": 2.0}\n')
    assert not plot_losses(path, out)
    assert not out.exists()
    path.write_text(path.read_text() + '{"step": 2, "loss": 2.0, "loss/video": 1.0}\n')
    assert plot_losses(path, out)
    assert out.read_bytes().startswith(b"\x89PNG")


def test_held_out_losses_are_drawn_over_trainings_own_and_their_sum_by_itself(tmp_path: Path):
    lines = [{"step": step, "loss": 1.0, "loss/video": 0.5, "loss/own": 0.2} for step in (1, 2)]
    held_out = {"step": 2, "val/loss": 0.9, "val/loss/video": 0.6, "val/independent/loss/video": 0.6}
    assert _panels(lines) == [("loss", ""), ("loss/video", "val/loss/video"), ("loss/own", "val/loss/own")]
    assert _panels([*lines, held_out])[:2] == [("loss", ""), ("", "val/loss")]
    assert _points([*lines, held_out], "val/loss/video") == ([2], [0.6])
    path, plain, both = tmp_path / "metrics.jsonl", tmp_path / "plain.png", tmp_path / "both.png"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert plot_losses(path, plain)
    path.write_text(path.read_text() + json.dumps(held_out) + "\n")
    assert plot_losses(path, both)
    assert plain.read_bytes() != both.read_bytes()


def test_nothing_but_json_lines_is_opened_by_default(tmp_path: Path):
    sinks = open_sinks(RunDir(tmp_path), LogConfig(), {}, 0)
    assert [type(sink).__name__ for sink in sinks] == ["RunLog"]
    for sink in sinks:
        sink.close()


def test_tensorboard_gets_the_figures(tmp_path: Path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    sinks = open_sinks(RunDir(tmp_path), LogConfig(tensorboard=True), {}, 0)
    for sink in sinks:
        sink.write(5, {"loss": 0.25})
        sink.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(5, 0.25)]


def test_wandb_offline_writes_a_run_and_keeps_its_id(tmp_path: Path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    sinks = open_sinks(RunDir(tmp_path), LogConfig(wandb="offline"), {"seed": 3}, 0)
    for sink in sinks:
        sink.write(5, {"loss": 0.25})
        sink.close()
    assert (tmp_path / "wandb-id.txt").read_text().strip()
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
