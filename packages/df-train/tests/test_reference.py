"""docs/configuration.md and --print-config: what the configuration classes say, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from df_data import cli as data_cli
from df_data.build.config import BuildConfig
from df_data.fetch.config import FetchConfig
from df_eval import cli as eval_cli
from df_eval.config import EvalConfig
from df_models.settings import load_config
from df_models.settings.reference import keys_of
from df_train import cli as train_cli
from df_train.config import TrainConfig
from df_train.sync.config import SyncConfig
from df_train.tokenizer.config import TokenizerConfig
from tools.make_configuration import APPLICATIONS, DOCUMENT, document

CONFIGS = Path(__file__).parents[3] / "configs"


def test_the_reference_is_up_to_date() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == document(), "run: uv run python tools/make_configuration.py"


@pytest.mark.parametrize("title", APPLICATIONS)
def test_every_key_says_what_it_means(title: str) -> None:
    silent = [key.dotted for key in keys_of(APPLICATIONS[title]) if not key.meaning]
    assert not silent, "describe them under `Attributes:` in the docstring of their class"


@pytest.mark.parametrize(
    ("main", "argv", "cls"),
    [
        (train_cli.main, ["--config", str(CONFIGS / "train/quickstart.yaml"), "optim.lr=3e-4"], TrainConfig),
        (train_cli.main, ["--config", str(CONFIGS / "train/tokenizer.yaml"), "seed=3"], TokenizerConfig),
        (train_cli.main, ["--config", str(CONFIGS / "train/sync.yaml"), "expert.window=2"], SyncConfig),
        (eval_cli.main, ["runs/none", "rollout.structure_steps=null", "clips=3"], EvalConfig),
        (data_cli.main, ["build", "--config", str(CONFIGS / "data/grid.yaml"), "out=~/grid"], BuildConfig),
        (data_cli.main, ["people", "--config", str(CONFIGS / "data/hdtf.yaml"), "workers=3"], BuildConfig),
    ],
)
def test_the_printed_configuration_reads_back_equal(
    main, argv: list[str], cls: type[BaseModel], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*argv, "--print-config"]) == 0
    printed = tmp_path / "printed.yaml"
    printed.write_text(capsys.readouterr().out, encoding="utf-8")
    overrides = [text for text in argv if "=" in text]
    file = argv[argv.index("--config") + 1] if "--config" in argv else None
    assert load_config(cls, printed) == load_config(cls, file, overrides)
    assert main([*argv, "--config", str(printed), "--print-config"]) == 0
    assert capsys.readouterr().out == printed.read_text(encoding="utf-8")


@pytest.mark.parametrize("command", ["plan", "fetch"])
def test_the_printed_configuration_of_a_fetch_reads_back_equal(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = str(CONFIGS / "fetch/hdtf.yaml")
    assert data_cli.main([command, source, "limit=3", "--print-config"]) == 0
    printed = tmp_path / "printed.yaml"
    printed.write_text(capsys.readouterr().out, encoding="utf-8")
    assert load_config(FetchConfig, printed) == load_config(FetchConfig, source, ["limit=3"])
    assert data_cli.main([command, str(printed), "--print-config"]) == 0
    assert capsys.readouterr().out == printed.read_text(encoding="utf-8")
