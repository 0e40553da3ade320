"""Stages: the video tower alone on general video, and both streams begun with it; what a start lacks begins afresh."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from df_data.build.build import build
from df_data.build.config import BuildConfig, ClipConfig
from df_data.format.shards import SplitWriter, staged_shards
from df_data.sources.config import SourceConfig
from df_data.stages.prepare import StageConfig
from df_infer.run_log import read_log
from df_models import DualForce, VideoDiT
from df_models.errors import UserError
from df_models.media import write_video
from df_models.settings import Location, merge, validate_config
from df_train.begin import PARTS, build_model, part_of
from df_train.cli import main, summary
from df_train.config import TrainConfig
from df_train.engine import Stop
from df_train.run import train

SHORT = {"steps": 4, "warmup": 1}


@pytest.fixture(scope="module")
def general(tmp_path_factory, random_clip, clip_encoders) -> Path:
    """General video of random latents."""
    root = tmp_path_factory.mktemp("data") / "general"
    encoders = {role: record for role, record in clip_encoders.items() if role != "audio"}
    for split, count in (("train", 8), ("val", 2)):
        writer = SplitWriter(root, split, num_shards=1, build="test", encoders=encoders, faces=False)
        staged = [writer.stage(random_clip(split, index, face=False)) for index in range(count)]
        for shard in staged_shards(staged):
            writer.finish_shard(shard, staged)
        writer.finish()
    return root


@pytest.fixture(scope="module")
def stage1(general, config_tree, tmp_path_factory) -> TrainConfig:
    return _stage1(config_tree, tmp_path_factory.mktemp("runs") / "one", general)


def _stage1(config_tree, run: Path, data: Path, **changes) -> TrainConfig:
    tree = config_tree(run, task="video", data={"root": str(data)}, optim=SHORT, validation={"every": 2, "clips": 2})
    return validate_config(TrainConfig, merge(tree, changes))


@pytest.fixture(scope="module")
def pretrained(stage1, interrupted_after) -> Path:
    """A finished run of stage 1, interrupted once on the way."""
    with interrupted_after(2):
        assert train(stage1).stop == Stop.INTERRUPTED
    assert train(stage1).stop == Stop.DONE
    return stage1.directory / "model"


def test_stage_1_trains_the_video_tower_alone(stage1, pretrained, config_tree, general, tmp_path):
    model = DualForce.from_pretrained(pretrained)
    assert {part_of(name) for name in model.state_dict()} == {"video", "reference", "resampler", "context"}
    assert model.config.streams == "video" and model.config.audio_dim == 0
    lines = read_log(stage1.directory / "metrics.jsonl")
    names = {name for line in lines for name in line}
    assert {"loss/video", "val/loss/video"} <= names and not any("structure" in n or "flame" in n for n in names)
    straight = _stage1(config_tree, tmp_path / "straight", general)
    train(straight)
    files = [path / "model.safetensors" for path in (pretrained, straight.directory / "model")]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("mode", ["teacher_forcing", "error_recycling"])
def test_stage_1_with_a_separate_history(config_tree, general, tmp_path, mode):
    changes = {"objective": {"history": {"mode": mode, "error_bank": 4}}, "optim": {"steps": 2}}
    result = train(_stage1(config_tree, tmp_path / "run", general, **changes))
    assert result.stop == Stop.DONE
    told = summary(result, tmp_path / "run")
    assert f"model.start_from={tmp_path / 'run' / 'model'}" in told and "df-eval" not in told, (
        "it has no faces to measure"
    )


def test_stage_2_begins_with_the_tower_of_stage_1(pretrained, config_tree, interrupted_after, tmp_path, capsys):
    tree = config_tree(tmp_path / "two", optim={**SHORT, "lr": 1e-12})
    tree["model"] |= {"start_from": str(pretrained), "architecture": "preset"}
    config = validate_config(TrainConfig, tree)
    with interrupted_after(2):
        train(config)
    said = capsys.readouterr().out
    assert f"model.start_from={pretrained} has no 'structure', 'bridge', 'audio', 'flame': these parts" in said
    train(config)
    assert "start afresh" not in capsys.readouterr().out
    start, now = DualForce.from_pretrained(pretrained), DualForce.from_pretrained(config.directory / "model")
    assert now.config.streams == "both" and now.has_structure_statistics and now.config.audio_dim == 128
    for name, weight in start.state_dict().items():
        torch.testing.assert_close(now.state_dict()[name], weight, rtol=0, atol=1e-6, msg=name)


def test_the_starts_own_configuration_with_both_streams(pretrained, config_tree, tmp_path):
    tree = config_tree(tmp_path / "run")
    tree["model"] = {"start_from": str(pretrained), "overrides": {"streams": "both", "audio_dim": 128}}
    told: list[str] = []
    model = build_model(validate_config(TrainConfig, tree), {}, told.append)
    assert model.config.streams == "both" and model.config.dim == 24
    assert told == [
        f"model.start_from={pretrained} has no 'structure', 'bridge', 'audio', 'flame': these parts start afresh"
    ]
    again = build_model(validate_config(TrainConfig, tree))
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values()))


def test_a_converted_tower_is_a_start_too(config_tree, tmp_path):
    tree = config_tree(tmp_path / "run")
    config = validate_config(TrainConfig, tree)
    tower = VideoDiT(build_model(config).config.video)
    tower.save_pretrained(tmp_path / "tower")
    tree["model"] |= {"start_from": str(tmp_path / "tower")}
    with pytest.raises(UserError, match=r"set model\.architecture=preset"):
        build_model(validate_config(TrainConfig, tree))
    tree["model"] |= {"architecture": "preset"}
    model = build_model(validate_config(TrainConfig, tree))
    assert model.video is not None
    for name, weight in tower.state_dict().items():
        assert torch.equal(model.video.state_dict()[name], weight)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"overrides": {"ffn_dim": 48}}, "do not fit: ffn_dim 32 -> 48"),
        ({"overrides": {"reference_width": 24}}, r"let what does not fit .* with model.leave_out=\[resampler\]"),
        ({"overrides": {"dim": 32}, "leave_out": ["resampler"]}, r"model.leave_out=\[resampler,.*reference.*video\]"),
        ({"overrides": {"num_layers": 3}}, "do not fit: num_layers 2 -> 3"),
        ({"overrides": {"reference_dim": 0}}, r"has weights for context, reference, resampler, which"),
        ({"leave_out": ["refernce"]}, "no part 'refernce' .did you mean 'reference'"),
    ],
)
def test_what_does_not_fit_is_refused(pretrained, config_tree, tmp_path, changes, said):
    tree = merge(config_tree(tmp_path / "run"), {"model": {"start_from": str(pretrained), "architecture": "preset"}})
    with pytest.raises(UserError, match=said):
        build_model(validate_config(TrainConfig, merge(tree, {"model": changes})))


def test_parts_can_be_left_out(pretrained, config_tree, tmp_path):
    section = {"start_from": str(pretrained), "architecture": "preset", "leave_out": ["resampler"]}
    tree = merge(config_tree(tmp_path / "run"), {"model": {**section, "overrides": {"reference_width": 24}}})
    told: list[str] = []
    model = build_model(validate_config(TrainConfig, tree), {}, told.append)
    assert "has no 'resampler', 'structure'," in told[0] and model.config.reference_width == 24
    assert {part_of(name) for name in model.state_dict()} <= set(PARTS)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"objective": {"structure_weight": 0.5}},
            "objective.structure_weight is above 0, but the model has no",
        ),
        (
            {"objective": {"flame": {"weight": 0.1}}},
            "objective.flame.weight is above 0, but",
        ),
        ({"objective": {"give_structure": 0.5}}, "objective gives structure, but the model has none"),
        ({"objective": {"shorten_audio": 0.5}}, "the model hears no audio"),
        ({"model": {"overrides": {"streams": "both"}}}, "task=video trains a model of streams=video, not both"),
        ({"task": "model"}, "without structure; train the video tower on it .task=video"),
    ],
)
def test_what_a_task_does_not_have_is_refused(config_tree, general, tmp_path, changes, said):
    with pytest.raises(UserError, match=said):
        train(_stage1(config_tree, tmp_path / "run", general, **changes))


def test_structure_alone_is_trained(config_tree, tmp_path):
    objective = {"video_weight": 0.0, "mouth_weight": 0.0}
    changes = {"objective": objective, "optim": {**SHORT, "steps": 2}, "validation": {"every": 2, "clips": 1}}
    tree = merge(config_tree(tmp_path / "run", **changes), {"model": {"overrides": {"streams": "structure"}}})
    train(validate_config(TrainConfig, tree))
    model = DualForce.from_pretrained(tmp_path / "run" / "model")
    assert model.video is None and model.has_structure_statistics


def test_clips_without_faces_are_built_and_trained_on(config_tree, tmp_path, tiny_model):
    (tmp_path / "in").mkdir()
    for index in range(3):
        frames = np.full((27, 20, 32, 3), 60 * index + 40, np.uint8)
        for place, frame in enumerate(frames):
            frame[4:12, place % 24 : place % 24 + 8] = 255 - 60 * index
        write_video(tmp_path / "in" / f"shape{index}.mp4", frames)
    source = SourceConfig(name="shapes", folder=Location(tmp_path / "in"), licence="CC0-1.0")
    settings = BuildConfig(
        out=Location(tmp_path / "out"),
        sources=(source,),
        stages=StageConfig(size=16, min_seconds=1.0),
        clips=ClipConfig(frames=9, stride=18, val_frames=9, references=2),
        faces=False,
        workers=1,
        device="cpu",
    )
    build(settings, progress=False)
    tree = config_tree(tmp_path / "run", task="video", data={"root": str(tmp_path / "out"), "batch_size": 2})
    sample = {"sample": {"clips": 1, "frames": 9}, "rollout": {"steps": 1}, "optim": {"steps": 2, "warmup": 1}}
    file = tmp_path / "run.yaml"
    from df_models.settings import dump_config

    file.write_text(dump_config(validate_config(TrainConfig, merge(tree, sample))))
    assert main(["--config", str(file)]) == 0
    assert (tmp_path / "run" / "samples" / "step-2" / "clip-0.mp4").is_file()
    assert re.search("faces: false", (tmp_path / "out" / "config.yaml").read_text())
