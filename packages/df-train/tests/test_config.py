from __future__ import annotations

from pathlib import Path

import pytest

from df_data.config import dump_config, load_config
from df_models.errors import UserError
from df_train.config import TrainConfig
from df_train.state import build_model

CONFIGS = Path(__file__).parents[3] / "configs" / "train"


@pytest.mark.parametrize("name", ["quickstart", "grid"])
def test_shipped_configurations_read_and_name_a_model(name: str):
    config = load_config(TrainConfig, CONFIGS / f"{name}.yaml")
    assert config.name == name
    assert config.directory == Path("runs") / name
    assert build_model(config).config.video_vae == "df-tiny"
    assert config.rollout_config.steps >= 1


def test_the_resolved_configuration_reads_back_equal(tmp_path: Path):
    config = load_config(
        TrainConfig,
        CONFIGS / "quickstart.yaml",
        ["optim.lr=3e-4", "rollout.steps=7", "model.overrides.num_layers=2", "max_minutes=1.5"],
    )
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(config))
    assert load_config(TrainConfig, path) == config
    assert config.rollout["steps"] == 7
    assert config.rollout["solver"] == "euler"


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("optim.lrr=1", "optim.lr"),
        ("rollout.stepps=3", "steps"),
        ("objective.history.mod=independent", "objective.history.mode"),
        ("checkpoint.kep=3", "checkpoint.keep"),
    ],
)
def test_a_misspelt_key_names_the_right_one(override: str, named: str):
    with pytest.raises(UserError, match=named):
        load_config(TrainConfig, None, [override])


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["optim.warmup=100", "optim.steps=50"], "warmup"),
        (["data.batch_size=10", "data.accumulate=4"], "accumulate"),
        (["sample.frames=32"], "1 \\+ 4 n"),
        (["name=a/b"], "name"),
        (["rollout.window=0"], "window"),
        (["objective.history.mode=bidirectional"], "independent"),
    ],
)
def test_values_that_cannot_work_are_refused(overrides: list[str], said: str):
    with pytest.raises(UserError, match=said):
        load_config(TrainConfig, None, overrides)


def test_an_unknown_model_setting_is_refused_with_the_nearest():
    with pytest.raises(UserError, match="num_layers"):
        build_model(load_config(TrainConfig, None, ["model.overrides.num_layer=3"]))
