from __future__ import annotations

import re
from pathlib import Path

import pytest

from df_models import preset_config
from df_models.errors import UserError
from df_models.settings import dump_config, load_config, read_tree, validate_config
from df_train.begin import build_model
from df_train.config import DataConfig, ShardingConfig, TrainConfig
from df_train.distill.objective import check as check_distillation
from df_train.hearing import check_hearing
from df_train.tasks import TASKS
from df_train.tokenizer.config import TokenizerConfig

CONFIGS = Path(__file__).parents[3] / "configs" / "train"


@pytest.mark.parametrize("name", ["quickstart", "grid"])
def test_shipped_configurations_read_and_name_a_model(name: str):
    config = load_config(TrainConfig, CONFIGS / f"{name}.yaml")
    assert config.name == name
    assert config.directory == Path("runs") / name
    assert build_model(config).config.video_vae == "df-tiny"
    assert config.rollout.steps >= 1


@pytest.mark.parametrize("path", [pytest.param(p, id=str(p.relative_to(CONFIGS))) for p in CONFIGS.rglob("*.yaml")])
def test_every_shipped_configuration_fits_its_task(path: Path):
    task = str(read_tree(path).get("task", "model"))
    if task not in TASKS:
        return
    config = load_config(TrainConfig, path)
    model = preset_config(config.model.preset, **{**TASKS[config.task].model, **config.model.overrides})
    assert model.streams in TASKS[config.task].streams
    check_hearing(config.objective, model)
    if config.task == "distill":
        check_distillation(config, model)


def test_a_field_that_the_model_has_not_is_told_with_the_configuration():
    with pytest.raises(UserError, match=r"override 'model.overrides.num_layer=1': .*did you mean 'num_layers'"):
        load_config(TrainConfig, CONFIGS / "quickstart.yaml", ["model.overrides.num_layer=1"])
    with pytest.raises(UserError, match=r"override 'model.overrides.num_layer=1': "):
        load_config(
            TrainConfig, CONFIGS / "quickstart.yaml", ["model.overrides.num_layer=1", "model.overrides.dim=256"]
        )


def test_an_override_is_not_blamed_for_what_the_file_says(tmp_path: Path):
    (tmp_path / "own.yaml").write_text("name: own\nmodel: {overrides: {num_layer: 3}}\n")
    with pytest.raises(UserError, match=r"own.yaml: model.overrides: a model has no setting 'num_layer'"):
        load_config(TrainConfig, tmp_path / "own.yaml", ["model.overrides.dim=256"])


def test_truth_is_no_number():
    with pytest.raises(UserError, match=r"override 'optim.steps=true': .*input should be a number, got true"):
        load_config(TrainConfig, CONFIGS / "quickstart.yaml", ["optim.steps=true"])
    with pytest.raises(UserError, match="write a list: brackets"):
        load_config(TrainConfig, CONFIGS / "quickstart.yaml", ["optim.betas=true"])
    with pytest.raises(
        UserError, match=r"override 'checkpoint.milestones=\[true, 2\]': .*each item should be a number"
    ):
        load_config(TrainConfig, CONFIGS / "quickstart.yaml", ["checkpoint.milestones=[true, 2]"])


def test_the_keys_of_a_section_are_listed_once(tmp_path: Path):
    (tmp_path / "own.yaml").write_text("optim: {qqqq: 1, zzzz: 2}\nema: {qqqq: 1}\n")
    with pytest.raises(UserError) as caught:
        load_config(TrainConfig, tmp_path / "own.yaml")
    first, second, third = str(caught.value).splitlines()
    assert "unknown key 'optim.qqqq'; the keys there are: " in first
    assert second.endswith("unknown key 'optim.zzzz'")
    assert "unknown key 'ema.qqqq'; the keys there are: " in third


def test_the_resolved_configuration_reads_back_equal(tmp_path: Path):
    config = load_config(
        TrainConfig,
        CONFIGS / "quickstart.yaml",
        ["optim.lr=3e-4", "rollout.steps=7", "model.overrides.num_layers=2", "max_minutes=1.5"],
    )
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(config))
    assert load_config(TrainConfig, path) == config
    assert config.rollout.steps == 7
    assert config.rollout.solver == "euler"


@pytest.mark.parametrize(
    ("root", "kept", "train"),
    [
        ("data/x", "data/x", "data/x/train"),
        ("file:///data/x", "/data/x", "/data/x/train"),
        ("https://host/x", "https://host/x", "https://host/x/train"),
        ("pipe:cat /x/{}", "pipe:cat /x/{}", "pipe:cat /x/train/{}"),
    ],
)
def test_a_dataset_may_be_a_directory_or_a_url(tmp_path: Path, root: str, kept: str, train: str):
    config = load_config(TrainConfig, None, [f"data.root='{root}'", "sample.clips=0", "data.buckets=[5, 9]"])
    assert (config.data.root, config.data.split("train")) == (kept, train)
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(config))
    assert load_config(TrainConfig, path) == config


def test_a_path_is_a_root_too():
    assert DataConfig.model_validate({"root": Path("data/x")}) == DataConfig(root="data/x")


def test_the_tokenizer_reads_videos_from_a_directory_only():
    with pytest.raises(UserError, match=r"data\.shards: videos are read from a directory"):
        load_config(TokenizerConfig, None, ["data.shards=https://host/data"])


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
        (["data.num_frames=5", "data.buckets=[5, 9]"], "give one of them"),
        (["data.buckets=[9, 5]"], "rising lengths"),
        (["data.buckets=[1, 5]"], "rising lengths"),
        (["data.buckets=[2, 3, 4, 5, 6, 7, 8, 9, 10]"], "data.buckets: .* at most 8"),
        (["data.start=marked"], "only one start"),
        (["data.cache_dir=cache"], "root is a directory"),
        (["data.root=https://host/data", "data.synth={}", "sample.clips=0"], "synth makes a corpus in a directory"),
        (["data.root=pipe:cat manifest.json", "sample.clips=0"], "write {} there"),
        (["data.root=https://host/data"], "set sample.clips=0"),
    ],
)
def test_values_that_cannot_work_are_refused(overrides: list[str], said: str):
    with pytest.raises(UserError, match=said):
        load_config(TrainConfig, None, overrides)


def test_the_examples_of_the_documentation_are_configurations(tmp_path: Path):
    document = CONFIGS.parents[1] / "docs" / "training-data.md"
    examples = re.findall(r"```yaml\n(.*?)```", document.read_text(encoding="utf-8"), re.DOTALL)
    assert len(examples) == 2
    for text in examples:
        path = tmp_path / "example.yaml"
        path.write_text(text.replace("extends: ", f"extends: {CONFIGS}/"))
        config = load_config(TrainConfig, path)
        assert config.data.remote or config.data.buckets


def test_an_unknown_model_setting_is_refused_with_the_nearest():
    with pytest.raises(UserError, match="num_layers"):
        build_model(load_config(TrainConfig, None, ["model.overrides.num_layer=3"]))


@pytest.mark.parametrize(
    ("given", "kept", "recomputed"),
    [(True, "every", 1), (False, "none", 0), ("none", "none", 0), ("every", "every", 1), (1, 1, 1), (3, 3, 3)],
)
def test_checkpointing_is_a_word_a_number_or_what_was_once_a_switch(given: object, kept: object, recomputed: int):
    sharding = validate_config(ShardingConfig, {"checkpointing": given})
    assert sharding.checkpointing == kept and type(sharding.checkpointing) is type(kept)
    assert sharding.recomputed == recomputed
    assert validate_config(ShardingConfig, sharding.model_dump(mode="json")) == sharding


@pytest.mark.parametrize("given", [0, -1, "some", 1.5])
def test_other_checkpointing_is_refused(given: object):
    with pytest.raises(UserError, match="checkpointing"):
        validate_config(ShardingConfig, {"checkpointing": given})
