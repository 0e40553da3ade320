"""The command: settings, and one clear line for every mistake."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from df_eval.cli import build_parser, main, parse_config
from df_eval.config import EvalConfig
from df_infer.config import RolloutChanges, RolloutConfig
from df_models.errors import UserError
from df_models.settings import load_config

CONFIGS = Path(__file__).parents[3] / "configs" / "eval"


def config_of(*argv: str) -> EvalConfig:
    return parse_config(build_parser().parse_intermixed_args(["run", *argv]))


def test_settings_come_from_options_overrides_and_files() -> None:
    assert config_of() == EvalConfig()
    assert config_of("--clips", "3", "--frames", "33", "65").frames == (33, 65)
    mixed = config_of("seed=4", "--frames", "65", "rollout.steps=7", "--clips", "2")
    assert (mixed.seed, mixed.frames, mixed.clips, mixed.rollout) == (4, (65,), 2, RolloutChanges(steps=7))
    own = config_of("--config", str(CONFIGS / "default.yaml"), "--seed", "9")
    assert own == EvalConfig(seed=9)


@pytest.mark.parametrize("file", [None, *sorted(CONFIGS.glob("*.yaml"))], ids=lambda path: path and path.stem)
def test_a_runs_own_rollout_is_measured_but_for_what_is_said(file: Path | None) -> None:
    """Defaults that were filled in once took the place of every run's own rollout, and nothing said so."""
    own = RolloutConfig(steps=4, window=2, struct_start="noise", context_noise=0.4, audio_guidance=2.0)
    given = () if file is None else ("--config", str(file))
    assert config_of(*given, "--device", "cpu").rollout.applied_to(own) == own
    changed = config_of(*given, "rollout.steps=7", "rollout.window=8").rollout
    assert changed.applied_to(own) == own.model_copy(update={"steps": 7, "window": 8})


def test_the_default_file_says_what_the_defaults_are() -> None:
    assert load_config(EvalConfig, CONFIGS / "default.yaml") == EvalConfig()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["frmes=[33]"], "did you mean 'frames'"),
        (["--frames", "34"], "1 + 4 n"),
        (["--frames", "many"], "no number of frames"),
        (["--frames", "9"], "too few"),
        (["--clips", "0"], "clips"),
        (["shifts=[10]"], "at least 25"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_wrong_settings_are_one_line(argv: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message.replace("+", "\\+")):
        config_of(*argv)


def test_a_run_that_is_none_is_an_error_of_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = {"missing": "no such run", "empty": "holds no config.yaml", "no-model": "no trained model"}
    (tmp_path / "empty").mkdir()
    (tmp_path / "no-model").mkdir()
    (tmp_path / "no-model" / "config.yaml").write_text("data: {root: data}\n")
    for name, message in cases.items():
        assert main([str(tmp_path / name)]) == 2
        error = capsys.readouterr().err.strip()
        assert error.startswith("df-eval: error: ") and message in error and "\n" not in error
    assert not list(tmp_path.glob("*/eval"))


def test_help_and_version_tell_what_is_what(capsys: pytest.CaptureFixture[str]) -> None:
    for option, words in (("--help", ["report.html", "examples", "exit codes"]), ("--version", ["df-eval 0"])):
        with pytest.raises(SystemExit) as stop:
            main([option])
        assert stop.value.code == 0
        text = capsys.readouterr().out
        assert all(word in text for word in words)


def test_neither_help_nor_a_missing_run_waits_for_torch() -> None:
    code = (
        "import sys\nfrom df_eval.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "code = main(['none'])\nsys.exit(code != 2 or 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "error: no such run: none" in done.stderr
