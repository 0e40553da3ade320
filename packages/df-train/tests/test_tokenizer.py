"""The tokenizer's recipe: it learns, exports what df-models loads, and its parts do what they say."""

from __future__ import annotations

import json

import numpy as np
import torch

from df_models.encoders import load_video_vae
from df_train import tokenizer, tokenizer_data
from df_train.muon import orthogonalise, split_parameters
from df_train.tokenizer_config import TokenizerConfig

SMALL = {
    "data": {"clips": 4, "val_clips": 1, "frames": 5, "val_frames": 5, "size": 32, "workers": 1},
    "stages": [{"steps": 12, "frames": 1, "batch_size": 2}, {"steps": 3, "frames": 5, "batch_size": 1}],
    "log_every": 1,
    "eval_every": 15,
    "warmup": 2,
    "bf16": False,
}


def test_training_lowers_the_error_and_its_vae_loads(tmp_path):
    config = TokenizerConfig.model_validate({**SMALL, "run_dir": tmp_path / "run"})
    vae = load_video_vae(str(tokenizer.train(config)))
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    errors = [record["mse"] for record in records if "mse" in record]
    assert np.mean(errors[9:12]) < 0.8 * np.mean(errors[:3])
    assert vae.decode(vae.encode(torch.rand(1, 5, 3, 32, 32))).shape == (1, 5, 3, 32, 32)


def test_orthogonalised_matrices_have_singular_values_near_one():
    for shape in ((16, 40), (40, 16), (32, 32)):
        values = torch.linalg.svdvals(orthogonalise(torch.randn(shape, generator=torch.Generator().manual_seed(1))))
        assert values.min() > 0.3 and values.max() < 1.4


def test_every_parameter_has_one_optimizer():
    config = TokenizerConfig()
    vae = tokenizer._new_vae(config)
    matrices, others = split_parameters(vae)
    assert {id(p) for p in matrices}.isdisjoint(id(p) for p in others)
    assert len(matrices) + len(others) == len(list(vae.parameters()))


def test_the_rate_warms_up_and_ends_at_zero():
    rates = [tokenizer._linear(step, 10, 100) for step in range(101)]
    assert rates[0] < rates[9] and max(rates) == 1.0 and rates[100] == 0.0


def test_mouth_weights_mark_the_box():
    boxes = torch.tensor([[[8.0, 16.0, 24.0, 32.0]]])
    weights = tokenizer_data.mouth_weights(boxes, 64)[0, 0, 0]
    assert weights.sum() == 16 * 16 and weights[16:32, 8:24].all()


def test_motion_is_smooth_and_reproducible():
    one, two = (tokenizer_data.smooth_tracks(np.random.default_rng(3), 33) for _ in range(2))
    assert np.array_equal(one.yaw, two.yaw)
    assert np.abs(np.diff(one.yaw)).max() < 10 and one.jaw.std() > 0.05


def test_mixtures_change_only_their_share():
    video = torch.rand(8, 3, 2, 16, 16)
    assert torch.equal(tokenizer_data.mix(video, 0.0, np.random.default_rng(0)), video)
    mixed = tokenizer_data.mix(video, 1.0, np.random.default_rng(0))
    assert (mixed != video).flatten(1).any(dim=1).all()
