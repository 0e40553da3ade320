"""The tokenizer's recipe: it learns, exports what df-models loads, and its parts do what they say."""

from __future__ import annotations

import json
import os
import signal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy import ndimage

from df_data.build.encode import mp4_bytes
from df_data.format.sample import Sample, SampleMeta
from df_data.format.shards import SplitWriter
from df_models.encoders import load_video_vae
from df_models.encoders.video.wan_vae import ASSETS, WEIGHTS
from df_models.errors import UserError
from df_models.settings import load_config
from df_models.time import latent_length
from df_train.cli import main
from df_train.tokenizer import data as tokenizer_data
from df_train.tokenizer import train as tokenizer
from df_train.tokenizer.config import TokenizerConfig, TokenizerDataConfig
from df_train.tokenizer.muon import orthogonalise, split_parameters
from df_train.tokenizer.videos import video_pools

SMALL = {
    "data": {"clips": 4, "val_clips": 1, "frames": 5, "val_frames": 5, "size": 32, "workers": 1},
    "stages": [{"steps": 12, "frames": 1, "batch_size": 2}, {"steps": 3, "frames": 5, "batch_size": 1}],
    "log_every": 1,
    "eval_every": 15,
    "warmup": 2,
    "precision": {"bf16": "off"},
}


def test_training_lowers_the_error_and_its_vae_loads(tmp_path):
    config = TokenizerConfig.model_validate({**SMALL, "run_dir": tmp_path / "run"})
    vae = load_video_vae(str(tokenizer.train(config)))
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    errors = [record["mse"] for record in records if "mse" in record]
    assert np.mean(errors[9:12]) < 0.8 * np.mean(errors[:3])
    assert vae.decode(vae.encode(torch.rand(1, 5, 3, 32, 32))).shape == (1, 5, 3, 32, 32)


def test_what_is_not_finite_ends_a_run_and_ruins_nothing(tmp_path, monkeypatch, capsys):
    original, poisoned = tokenizer.reconstruct, []

    def damaged(vae, video, noise):
        output, mean, log_variance = original(vae, video, noise)
        poisoned.append(len(poisoned) + 1)
        return output * (torch.nan if len(poisoned) == 7 else 1.0), mean, log_variance

    monkeypatch.setattr(tokenizer, "reconstruct", damaged)
    run = tmp_path / "run"
    file = tmp_path / "config.yaml"
    tree = {**SMALL, "task": "tokenizer", "run_dir": str(run), "eval_every": 6, "checkpoint": {"every": 6, "keep": 1}}
    file.write_text(json.dumps(tree))
    assert main(["--config", str(file)]) == 1
    assert "not finite at step 7: the norm of the tokenizer's gradient" in capsys.readouterr().err
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-6"]
    assert all(value.isfinite().all() for value in load_file(run / "vae" / WEIGHTS).values())

    def ruined(state, *rest):
        with torch.no_grad():
            next(state.vae.parameters()).fill_(torch.nan)
        state.step += 1
        return {}

    monkeypatch.setattr(tokenizer, "take_step", ruined)
    assert main(["--config", str(file)]) == 1
    assert "the norm of the tokenizer's weights" in capsys.readouterr().err
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-6"]
    assert all(value.isfinite().all() for value in load_file(run / "vae" / WEIGHTS).values())


def test_a_stopped_run_goes_on_as_if_it_had_not(tmp_path, monkeypatch, capsys):
    """Interrupted in the first stage, between two checkpoints; the second command takes the rest."""
    small = {**SMALL, "eval_every": 6, "checkpoint": {"every": 4, "keep": 1}}
    whole = TokenizerConfig.model_validate({**small, "run_dir": tmp_path / "whole"})
    broken = TokenizerConfig.model_validate({**small, "run_dir": tmp_path / "broken"})
    tokenizer.train(whole)
    original, taken = tokenizer.take_step, []

    def interrupted(state, *rest):
        taken.append(state.step)
        if state.step == 6 and len(taken) == 7:
            os.kill(os.getpid(), signal.SIGINT)
        return original(state, *rest)

    monkeypatch.setattr(tokenizer, "take_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tokenizer.train(broken)
    assert [path.name for path in (tmp_path / "broken" / "checkpoints").iterdir()] == ["step-7"]
    path = tokenizer.train(broken)
    assert taken == list(range(15)), "no step twice"
    assert (path / WEIGHTS).read_bytes() == (tmp_path / "whole" / "vae" / WEIGHTS).read_bytes()
    logs = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("broken", "whole")]
    assert logs[0] == logs[1]
    for wish, said in (("default", "holds a finished run"), ("resume", "holds a finished run")):
        with pytest.raises(UserError, match=said):
            tokenizer.train(broken, wish)
    assert main(["--config", str(tmp_path / "broken" / "config.yaml"), "--check"]) == 2
    assert "holds a finished run" in capsys.readouterr().err
    assert main(["--config", str(tmp_path / "broken" / "config.yaml"), "--check", "--fresh"]) == 0


def test_fresh_clears_only_what_df_train_wrote(tmp_path):
    config = TokenizerConfig.model_validate({**SMALL, "run_dir": tmp_path / "run"})
    (tmp_path / "run" / "vae").mkdir(parents=True)
    (tmp_path / "run" / "vae" / "mine.txt").write_text("kept")
    with pytest.raises(UserError, match="did not write"):
        tokenizer.train(config, "fresh")
    assert (tmp_path / "run" / "vae" / "mine.txt").read_text() == "kept"
    elsewhere = TokenizerConfig.model_validate({**SMALL, "run_dir": tmp_path / "other"})
    with pytest.raises(UserError, match="nothing to resume"):
        tokenizer.train(elsewhere, "resume")


def test_every_step_has_its_stage():
    stages = TokenizerConfig.model_validate(SMALL).stages
    assert [tokenizer_data.stage_at(step, stages).frames for step in (0, 11, 12, 14)] == [1, 1, 5, 5]


def test_orthogonalised_matrices_have_singular_values_near_one():
    for shape in ((16, 40), (40, 16), (32, 32)):
        values = torch.linalg.svdvals(orthogonalise(torch.randn(shape, generator=torch.Generator().manual_seed(1))))
        assert values.min() > 0.3 and values.max() < 1.4


def test_every_parameter_has_one_optimizer():
    vae = tokenizer.new_state(TokenizerConfig(), torch.device("cpu")).vae
    matrices, others = split_parameters(vae)
    assert {id(p) for p in matrices}.isdisjoint(id(p) for p in others)
    assert len(matrices) + len(others) == len(list(vae.parameters()))


def test_the_rate_warms_up_and_ends_at_zero():
    rates = [tokenizer._linear(step, 10, 100) for step in range(101)]
    assert rates[0] < rates[9] and max(rates) == 1.0 and rates[100] == 0.0


def test_each_region_has_its_weight_and_where_two_overlap_the_larger_counts():
    mouth, eye = [8.0, 16.0, 24.0, 32.0], [20.0, 16.0, 28.0, 24.0]
    boxes = torch.tensor([[[mouth, eye]]])
    weights = tokenizer_data.region_weights(boxes, (1.0, 3.0, 3.0), 64)[0, 0, 0]
    assert (weights[16:24, 20:28] == 3).all() and (weights[24:32, 8:24] == 1).all()
    assert weights.sum() == 3 * 8 * 8 + 16 * 16 - 4 * 8
    alone = tokenizer_data.region_weights(boxes[:, :, :1], (2.0, 3.0, 3.0), 64)[0, 0, 0]
    assert (alone[16:32, 8:24] == 2).all() and alone.sum() == 2 * 16 * 16


def test_the_eyes_boxes_hold_the_eyes_and_their_weight_is_for_rendered_people_alone(tmp_path):
    _, boxes = tokenizer_data._render(tokenizer_data._Job(tokenizer_data.VAL_IDENTITIES, 0, 5, 64, False))
    assert boxes.shape == (5, 3, 4)
    mouth, left, right = boxes.transpose(1, 0, 2)
    assert (left[:, 2] < right[:, 2]).all() and (np.maximum(left[:, 3], right[:, 3]) < mouth[:, 3]).all()
    tree = {**SMALL, "loss": {"eyes": 1.0}}
    TokenizerConfig.model_validate(tree)
    with pytest.raises(ValueError, match="holds no boxes of eyes"):
        TokenizerConfig.model_validate({**tree, "data": {**SMALL.get("data", {}), "shards": str(tmp_path)}})


def test_motion_is_smooth_and_reproducible():
    one, two = (tokenizer_data.smooth_tracks(np.random.default_rng(3), 33) for _ in range(2))
    assert np.array_equal(one.yaw, two.yaw)
    assert np.abs(np.diff(one.yaw)).max() < 10 and one.jaw.std() > 0.05


def test_a_mirrored_clip_keeps_its_mouth_under_its_weight():
    video = torch.rand(8, 3, 2, 16, 16)
    weights = (video[:, :1] > 0.5).float()
    same, _ = tokenizer_data.mirror(video, weights, 0.0, np.random.default_rng(0))
    assert torch.equal(same, video)
    mirrored, marked = tokenizer_data.mirror(video, weights, 0.5, np.random.default_rng(0))
    turned = (mirrored != video).flatten(1).any(dim=1)
    assert 0 < turned.sum() < 8 and torch.equal(mirrored[turned], video[turned].flip(-1))
    assert torch.equal(marked, (mirrored[:, :1] > 0.5).float())


def test_a_window_longer_than_the_clips_is_refused():
    with pytest.raises(ValueError, match=r"17 frames does not fit in data\.frames=5"):
        TokenizerConfig.model_validate({**SMALL, "stages": [{"steps": 1, "frames": 17, "batch_size": 1}]})


def videos(root, lengths=(13, 9), size=32, keep=True):
    """A dataset of noise clips as `df-data build` writes them: pixels in mp4s, mouths at (8, 16, 24, 30)."""
    for split in ("train", "val"):
        writer = SplitWriter(root, split, num_shards=1, build="test", encoders={})
        staged = []
        for index, length in enumerate(lengths):
            rng = np.random.default_rng(index)
            frames = ndimage.zoom(rng.uniform(0, 255, (length, 4, 4, 3)), (1, size / 4, size / 4, 1), order=1)
            mp4 = mp4_bytes(frames.astype(np.uint8), np.zeros(640 * length, np.float32), lossless=True)
            staged.append(writer.stage(video_sample(f"{split}-{index}", split, length, size, mp4 if keep else None)))
        writer.finish_shard(0, staged)
        writer.finish()


def video_sample(key, split, length, size, mp4):
    latents, cells = latent_length(length), size // 8
    meta = SampleMeta(
        key=key, source=key, licence="none", identity=key, split=split, num_frames=length, height=size, width=size
    )
    tensors = {
        "video_latent": torch.zeros(latents, 16, cells, cells).half(),
        "structure": torch.zeros(length, 70),
        "audio": torch.zeros(2 * length, 4).half(),
        "reference_latents": torch.zeros(1, 16, cells, cells).half(),
        "reference_frames": torch.zeros(1, dtype=torch.int32),
        "reference_features": torch.zeros(1, 2, 4).half(),
        "mouth_boxes": torch.tensor([8.0, 16.0, 24.0, 30.0]).repeat(length, 1),
    }
    return Sample(meta, tensors, mp4)


def test_videos_of_a_dataset_are_read_with_their_mouths(tmp_path):
    videos(tmp_path)
    data = TokenizerDataConfig(shards=tmp_path, frames=9, val_frames=13, size=32)
    train, held_out = video_pools(data, tmp_path)
    assert train.frames.shape == (2, 9, 32, 32, 3) and train.boxes.shape == (2, 9, 1, 4)
    assert held_out["held out"].frames.shape == (1, 13, 32, 32, 3)
    assert held_out["held out"].frames.std() > 20 and held_out["held out"].boxes[0, 12, 0].tolist() == [8, 16, 24, 30]


@pytest.mark.parametrize(
    ("changes", "keep", "message"),
    [
        ({"size": 64}, True, "clips of 32x32 pixels; set data.size"),
        ({"frames": 17}, True, "no clip of 17 frames with its mp4"),
        ({"frames": 9}, False, "keep_video: true"),
    ],
)
def test_a_dataset_that_does_not_do_is_refused(tmp_path, changes, keep, message):
    videos(tmp_path, keep=keep)
    with pytest.raises(UserError, match=message):
        video_pools(TokenizerDataConfig.model_validate({"size": 32, **changes}), tmp_path)


def test_training_on_videos_goes_on_from_the_embedded_vae(tmp_path):
    videos(tmp_path / "data")
    changes = {
        "data": {"shards": tmp_path / "data", "frames": 9, "val_frames": 9, "size": 32},
        "stages": [{"steps": 2, "frames": 5, "batch_size": 2}],
        "start_from": "df-tiny",
        "matrix_lr": 1e-9,
        "lr": 1e-9,
        "run_dir": tmp_path / "run",
        "precision": {"bf16": "off"},
    }
    config = TokenizerConfig.model_validate(changes)
    path = tokenizer.train(config)
    assert load_config(TokenizerConfig, tmp_path / "run" / "config.yaml") == config
    weights, embedded = load_file(path / WEIGHTS), load_file(ASSETS / "df-tiny" / WEIGHTS)
    assert all(torch.allclose(weights[name].float(), embedded[name].float(), atol=1e-3) for name in embedded)
    again = TokenizerConfig.model_validate({**changes, "start_from": str(path), "run_dir": tmp_path / "again"})
    assert (tokenizer.train(again) / WEIGHTS).is_file()


def test_the_command_checks_a_tokenizer_without_training_it(tmp_path, capsys):
    videos(tmp_path / "data")
    file = tmp_path / "videos.yaml"
    data = f"{{shards: {tmp_path / 'data'}, size: 32}}"
    file.write_text(f"task: tokenizer\nrun_dir: {tmp_path / 'run'}\nstart_from: df-tiny\ndata: {data}\n")
    assert main(["--config", str(file), "--check"]) == 0 and "ready to train" in capsys.readouterr().out
    for wrong, said in (
        ("start_from=df-tinny", "no video VAE 'df-tinny'"),
        ("data.size=64", "set data.size"),
        (f"data.shards={tmp_path / 'gone'}", "no such dataset"),
    ):
        assert main(["--config", str(file), "--check", wrong]) == 2 and said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_mixtures_change_only_their_share():
    video = torch.rand(8, 3, 2, 16, 16)
    assert torch.equal(tokenizer_data.mix(video, 0.0, np.random.default_rng(0)), video)
    mixed = tokenizer_data.mix(video, 1.0, np.random.default_rng(0))
    assert (mixed != video).flatten(1).any(dim=1).all()
