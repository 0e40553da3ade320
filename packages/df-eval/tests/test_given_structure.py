"""Evaluation of models that are given their structure: the clips' own, or what another model makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from df_eval.clips import EvalClip, render_clips
from df_eval.config import EvalConfig
from df_eval.evaluate import _generator, check_makable, structure_there
from df_eval.measure import Truth, Video, measure
from df_eval.reading.readers import SyntheticFaceReader, lips_of_structure
from df_eval.reading.readings import signals_of
from df_eval.reports.facts import protocol_lines
from df_eval.rows.generation import Generated, fitting_lengths, generate_clips, true_structure
from df_eval.rows.systems import RunSystem
from df_infer.config import RolloutConfig
from df_infer.pipeline import Pipeline
from df_infer.run_dir import RunDir
from df_models import DualForce
from df_models.errors import UserError
from df_models.structure import FLAME_MOTION_59, SYNTHETIC_70, StructureLayout
from df_models.time import from_slots

FRAMES, SIZE = 9, 32
TINY = {
    "dim": 24, "num_layers": 1, "num_heads": 2, "ffn_dim": 32, "structure_width": 16, "structure_layers": 1,
    "structure_heads": 2, "structure_ffn_dim": 32, "fusion_depth": 1, "bridge_width": 16, "bridge_heads": 2,
    "audio_width": 16, "audio_heads": 2, "reference_width": 16, "flame_dim": 0, "video_size": SIZE,
}  # fmt: skip


@pytest.fixture(scope="module")
def clips() -> list[EvalClip]:
    return render_clips(2, FRAMES, SIZE, 0)


def saved(folder: Path, seed: int, **changes: Any) -> Path:
    torch.manual_seed(seed)
    changes = {"structure_layout": StructureLayout.of(SYNTHETIC_70, "synthetic"), **changes}
    model = DualForce.from_preset("quickstart", **TINY, **changes)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.2)
    model.save_pretrained(str(folder / "model"))
    (folder / "config.yaml").write_text("rollout: {steps: 1, window: 3}\n")
    return folder


def generated(pipeline: Pipeline, clips: list[EvalClip], source: str | None) -> np.ndarray:
    rollout = RolloutConfig(steps=1, structure_from=source)
    options = {"rollout": rollout, "seed": 3, "batch_size": 2, "progress": lambda count: None}
    made = list(generate_clips(pipeline, clips, FRAMES, **options))
    return np.stack([clip.structure_TD for clip in made])


def test_the_structure_is_the_clips_own_or_the_other_models(clips: list[EvalClip], tmp_path: Path):
    maker = saved(tmp_path / "maker", 0)
    condition = Pipeline.from_run(saved(tmp_path / "condition", 1, structure_given="always"), "cpu")
    truth = np.stack([clip.structure_TV for clip in clips if clip.structure_TV is not None])
    np.testing.assert_allclose(generated(condition, clips, "truth"), truth, atol=1e-4)
    wanted = generated(Pipeline.from_run(maker, "cpu"), clips, None)
    np.testing.assert_allclose(generated(condition, clips, str(maker)), wanted, atol=1e-4)
    assert np.abs(wanted - truth).max() > 0.1
    system = RunSystem("generated", condition, RolloutConfig(steps=1, structure_from="others"), EvalConfig(seed=3))
    swapped = [
        made.structure_TD for made in system.make(clips, FRAMES, lambda count: None) if isinstance(made, Generated)
    ]
    np.testing.assert_allclose(swapped, truth[::-1], atol=1e-4)
    with pytest.raises(UserError, match="there is no other clip"):
        system.make(clips[:1], FRAMES, lambda count: None)
    with pytest.raises(UserError, match="makes none"):
        check_makable(condition.model.config, RolloutConfig())
    check_makable(condition.model.config, RolloutConfig(structure_from="truth"))
    with pytest.raises(UserError, match="no such run or model"):
        generated(condition, clips, str(tmp_path / "gone"))


def test_a_distilled_student_is_given_no_structure(tmp_path: Path):
    run = RunDir(saved(tmp_path / "student", 0))
    asked = EvalConfig.model_validate({"device": "cpu", "rollout": {"structure_from": "truth"}})
    _generator(run, "generated", None, asked)
    run.config.write_text("rollout: {steps: 1, window: 3}\ntask: distill\n")
    _generator(run, "generated", None, EvalConfig(device="cpu"))
    with pytest.raises(UserError, match="is a distilled student"):
        _generator(run, "generated", None, asked)


def test_flames_motion_is_taken_where_the_models_structure_is_that(clips: list[EvalClip], tmp_path: Path):
    layout = StructureLayout.of(FLAME_MOTION_59, "synthetic")
    run = saved(tmp_path / "flame", 0, structure_layout=layout, structure_dim=59)
    pipeline = Pipeline.from_run(run, "cpu")
    flame = clips[0].flame_TV
    assert flame is not None and structure_there(None, pipeline.model.config) == layout
    assert torch.equal(from_slots(true_structure(pipeline, clips[0], FRAMES)), flame[:, 100:])
    lips = lips_of_structure(flame[:, 100:].numpy(), layout, SyntheticFaceReader())
    assert lips is not None and np.corrcoef(lips.opening_T, clips[0].truth["mouth_open"])[0, 1] > 0.8
    assert lips.width_T is None, "FLAME's expression mixes it with all else"
    truth = Truth(clips[0].frames_THWC, signals_of(clips[0].truth), None)
    told = measure("generated", Video(clips[0].frames_THWC, truth.signals, lips), truth, max_lag=1, shifts=())
    assert told.absent["structure_lip_width"] == "no lip width can be decoded from a structure stream of it"
    assert "structure_lip_sync" in told.pairs


def told(source: str | None = None, **asked: object) -> dict[str, str]:
    """The protocol's lines."""
    facts = {
        "config": EvalConfig.model_validate(asked).model_dump(mode="json"),
        "rollout": RolloutConfig(structure_from=source).model_dump(mode="json"),
        "clips": [{"identity": "a"}],
        "clips_from": "", "size": (64, 64), "reader": "", "parameters": 1,
        "video_vae": {"id": ""}, "device": "", "torch": "",
    }  # fmt: skip
    return dict(protocol_lines(facts, SyntheticFaceReader()))


def test_the_protocol_says_whose_structure_it_is():
    assert told(None)["structure"].startswith("generated") and told("truth")["structure"].startswith("GIVEN, the true")
    assert "the next clip, of another person where there is one, beside" in told("others")["structure"]
    assert told("runs/other")["structure"] == "given, made first by runs/other from the same sound"


def test_the_protocol_says_what_is_measured_beside_the_table():
    asked = {"drift": {"frames": 1025}, "interventions": True, "sync_codecs": True}
    lines = told(**asked)
    assert set(lines) - set(told()) == {"drift", "interventions", "SyncNet behind codecs"}
    assert "33 frames" in lines["drift"] and "33, 129, 257, 513" in lines["drift"] and "1025" in lines["drift"]


def test_longer_clips_than_a_model_makes_are_not_measured(clips: list[EvalClip]):
    lengths, missing = fitting_lengths([5, 9], clips, most=5)
    assert lengths == [5] and "at most 5 frames" in missing[9]
