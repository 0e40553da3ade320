"""Curves over training: each milestone is measured once, and again only if what decides its numbers changed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fabricated import outcome_of
from safetensors.torch import load_file, save_file

from df_eval import milestones
from df_eval.cli import main
from df_eval.config import EvalConfig
from df_eval.measure import GENERATED, RECONSTRUCTION
from df_eval.milestones import evaluate_milestones, training_table
from df_eval.reading.measured_as import measured_as
from df_eval.reading.reader_files import reader_files
from df_eval.reports.goals import goals_of
from df_eval.reports.output import write_outcome
from df_eval.reports.table import HEADLINE
from df_infer.run_dir import RunDir
from df_models import DualForce
from df_models.errors import UserError
from df_models.files import sha256_file

TINY = {
    "dim": 24, "num_layers": 1, "num_heads": 2, "ffn_dim": 32, "structure_width": 16, "structure_layers": 1,
    "structure_heads": 2, "structure_ffn_dim": 32, "fusion_depth": 1, "bridge_width": 16, "bridge_heads": 2,
    "audio_width": 16, "audio_heads": 2, "reference_width": 16, "flame_dim": 0, "video_size": 32,
}  # fmt: skip
CONFIG = EvalConfig(clips=2, frames=(33,), resamples=100, videos=0)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with two milestones and no dataset: it is measured on rendered clips."""
    for step in (100, 2000):
        torch.manual_seed(step)
        DualForce.from_preset("quickstart", **TINY).save_pretrained(str(tmp_path / "run" / "models" / f"step-{step}"))
    (tmp_path / "run" / "config.yaml").write_text("data: {root: gone, synth: {size: 32}}\n")
    return tmp_path / "run"


class Measuring:
    """Stands in for `evaluate`: writes a constructed evaluation, better the longer the training, and counts."""

    def __init__(self) -> None:
        self.done: list[int] = []

    def __call__(self, runs: list[Path], config: EvalConfig, out: Path, quiet: bool) -> None:
        assert config.checkpoint is not None
        run = RunDir(runs[0])
        self.done.append(config.checkpoint)
        made = outcome_of(out / "none.jsonl", clips=2, noise=100 / config.checkpoint, lengths=(33,))
        key = measured_as(run, config, None, reader_files(config.readers, None))
        facts = {"protocol": None, "clips_from": "constructed", "config": config.model_dump(mode="json")}
        goals = [goal for found in made.results.values() for goal in goals_of(found, 0, 100)]
        write_outcome(
            replace(made, config=config, facts=facts, goals=goals, measured_as=key, videos={}, results={}), out
        )


@pytest.fixture
def measuring(monkeypatch: pytest.MonkeyPatch) -> Measuring:
    found = Measuring()
    monkeypatch.setattr(milestones, "evaluate", found)
    return found


def test_every_milestone_is_measured_once(run: Path, measuring: Measuring, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    curves = evaluate_milestones(run, CONFIG, run / "eval", said.append)
    assert measuring.done == [100, 2000] and curves == run / "eval" / "training.json"
    document = json.loads(curves.read_text())
    points = document["curves"]["33"][GENERATED]["lip_sync"]
    assert [point["step"] for point in points] == document["steps"] == [100, 2000]
    assert points[0]["value"] < points[1]["value"] and points[1]["low"] <= points[1]["value"] <= points[1]["high"]
    own_document = json.loads((run / "eval" / "step-2000" / "metrics.json").read_text())
    own = own_document["lengths"]["33"]["rows"][GENERATED]
    assert {k: v for k, v in points[1].items() if k != "step"} == own["lip_sync"]
    assert "psnr" in document["curves"]["33"][RECONSTRUCTION]
    assert {path.stem for path in (run / "eval" / "training").iterdir()} == set(HEADLINE)
    lines = training_table(document).splitlines()
    assert len(lines) == 4 and lines[2].startswith("| 33") and "100" in lines[2]

    assert document["unavailable"] == {"33": {}}
    blind = json.loads(json.dumps(own_document))
    blind["lengths"]["33"]["rows"][GENERATED]["lip_sync"] |= {"value": None, "reason": "no face was found"}
    early = blind | {"lengths": {}, "not_measured": {"33": "no clip is so long"}}
    found = milestones.training_document("x", {100: blind, 200: blind, 300: own_document})
    assert found["unavailable"]["33"] == {"lip_sync": {"no face was found": [100, 200]}}
    told = training_table(found).splitlines()
    assert told[-1] == "- 33 frames, steps 100, 200: no lip-sync: no face was found"
    told = training_table(milestones.training_document("x", {300: own_document, 400: early})).splitlines()
    assert len(told) == 6 and told[-1].startswith("- 33 frames, step 400: no lip-sync, ")
    assert told[-1].endswith(": no clip is so long")

    monkeypatch.setattr(milestones, "plot_training", lambda *_: False)  # drawn above
    quoted = {100: own_document | {"protocol": own_document["protocol"] | {"config": {"split": "test"}}, "warning": ""}}
    assert "do not choose a step" in milestones.training_document("x", quoted)["warning"]
    checked: list[Path] = []
    check = DualForce.check
    monkeypatch.setattr(DualForce, "check", lambda path: [checked.append(path), check(path)][1])
    evaluate_milestones(run, CONFIG.model_copy(update={"videos": 2, "device": "cpu"}), run / "eval", said.append)
    assert measuring.done == [100, 2000] and "measured already" in said[-1], "how much is shown decides no number"
    assert checked == [], "what is not measured again is not read"
    (run / "eval" / "step-100" / "metrics.json").unlink()  # as in an evaluation that was killed
    evaluate_milestones(run, CONFIG, run / "eval", said.append)
    assert measuring.done == [100, 2000, 100] and [path.name for path in checked] == ["step-100"]
    torch.manual_seed(5)
    DualForce.from_preset("quickstart", **TINY).save_pretrained(str(run / "models" / "step-2000"))
    evaluate_milestones(run, CONFIG, run / "eval", said.append)
    assert measuring.done == [100, 2000, 100, 2000], "it was trained anew"
    keys = {
        measured_as(RunDir(run), config.model_copy(update={"checkpoint": step}), None, config.readers)
        for config in (CONFIG, CONFIG.model_copy(update={"seed": 1}), CONFIG.model_copy(update={"frames": (25,)}))
        for step in (100, 2000)
    }
    assert len(keys) == 6, "settings and weights decide"


def reshape(weights: Path, header: Path) -> None:
    """Make a whole file, of the right hash, of tensors that are not the model's."""
    tensors = load_file(weights)
    name = next(name for name, tensor in tensors.items() if tensor.ndim == 2)
    save_file(tensors | {name: tensors[name][:-1].contiguous()}, weights)
    told = json.loads(header.read_text()) | {"weights_sha256": sha256_file(weights)}
    header.write_text(json.dumps(told))


def test_a_broken_or_missing_milestone_is_told_before_anything_is_generated(run: Path, measuring: Measuring) -> None:
    (run / "config.yaml").write_text(
        "data: {root: gone, synth: {size: 32}}\ncheckpoint: {milestones: [100, 500, 2000]}\n"
    )
    said: list[str] = []
    evaluate_milestones(run, CONFIG, run / "eval", said.append)
    assert "step 500" in said[0] and "not there" in said[0] and "measuring" in said[1]

    weights, header = (run / "models" / "step-2000" / name for name in ("model.safetensors", "config.json"))
    whole, told = weights.read_bytes(), header.read_text()
    measuring.done.clear()
    for name, spoil, reason in (
        ("cut short", lambda: weights.write_bytes(whole[: len(whole) // 2]), "truncated"),
        ("altered", lambda: weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1])), "sha256 differs"),
        ("of another shape", lambda: reshape(weights, header), "does not fit its config.json"),
        ("gone", weights.unlink, "holds no model.safetensors"),
        ("not written to its end", header.unlink, "holds no config.json"),
        ("no JSON", lambda: header.write_text("{"), "damaged"),
    ):
        weights.write_bytes(whole), header.write_text(told)
        spoil()
        with pytest.raises(UserError, match="1 of 2 milestones cannot be loaded, so nothing was measured") as error:
            evaluate_milestones(run, CONFIG.model_copy(update={"seed": 1}), run / "eval", said.append)
        assert reason in str(error.value) and "step 2000" in str(error.value), name
        assert "step 100:" not in str(error.value) and measuring.done == [], name


def test_the_check_before_holds_no_weights(run: Path, measuring: Measuring, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object, **__: object) -> None:
        raise AssertionError("a milestone is loaded when it is measured, and not before")

    monkeypatch.setattr(DualForce, "from_pretrained", load)
    evaluate_milestones(run, CONFIG, run / "eval", lambda _: None)
    assert measuring.done == [100, 2000]


def test_mistakes_are_one_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("none", "young", "foreign"):
        (tmp_path / name).mkdir()
    (tmp_path / "young" / "config.yaml").write_text("name: young\n")
    (tmp_path / "foreign" / "training.json").write_text("mine")
    for argv, message in (
        ([str(tmp_path / "none"), "--checkpoint", "all"], "holds no config.yaml"),
        ([str(tmp_path / "young"), "--checkpoint", "all"], "has no milestones to measure"),
        ([str(run), str(run), "--checkpoint", "all", "--out", "x"], "the training of one run"),
        ([str(run), "--checkpoint", "last"], "is no step"),
        ([str(run), "--checkpoint", "all", "--out", str(tmp_path / "foreign")], "df-eval did not write"),
    ):
        assert main(argv) == 2
        error = capsys.readouterr().err.strip()
        assert message in error and "\n" not in error
    assert (tmp_path / "foreign" / "training.json").read_text() == "mine"
