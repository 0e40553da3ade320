"""Finding the model and the rollout settings in a run directory (a file contract; see its README)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from df_infer.config import RolloutConfig
from df_models.errors import UserError
from df_models.settings import validate_config
from df_models.text import PROMPT_FILE

CONFIG = "config.yaml"
MODEL = "model"
MODEL_FILES = ("config.json", "model.safetensors")


@dataclass(frozen=True)
class Run:
    """What generation needs of a run.

    Attributes:
        model: directory of safetensors and config.json.
        rollout: the run's own rollout settings, or the defaults for a bare model directory.
        prompt: the encoded prompt that the model was trained with; None if there is none beside it.
    """

    model: Path
    rollout: RolloutConfig
    prompt: Path | None = None


def open_run(path: str | Path) -> Run:
    """Open ``runs/<name>`` (config.yaml and model/), its ``model`` directory, or any saved model's directory.

    Raises:
        UserError: it is none of these, or training has not written a model into it yet.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"no such run: {path}; give a directory that df-train wrote, such as runs/quickstart")
    if _is_model(path):
        parent = path.resolve().parent
        rollout = _read_rollout(parent / CONFIG) if path.resolve().name == MODEL else RolloutConfig()
        return Run(path, rollout, _prompt(path))
    if not (path / CONFIG).is_file():
        raise UserError(
            f"{path} is no run and no model: a run holds {CONFIG} and {MODEL}/, a model {' and '.join(MODEL_FILES)}"
        )
    if not _is_model(path / MODEL):
        raise UserError(f"the run {path} has no trained model yet ({path / MODEL} is missing); let df-train finish it")
    return Run(path / MODEL, _read_rollout(path / CONFIG), _prompt(path / MODEL))


def _prompt(model: Path) -> Path | None:
    path = model / PROMPT_FILE
    return path if path.is_file() else None


def _is_model(path: Path) -> bool:
    return all((path / name).is_file() for name in MODEL_FILES)


def _read_rollout(path: Path) -> RolloutConfig:
    if not path.is_file():
        return RolloutConfig()
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML; restore the config that df-train wrote") from error
    section = tree.get("rollout") if isinstance(tree, dict) else None
    if section is None:
        return RolloutConfig()
    if not isinstance(section, dict):
        raise UserError(f"{path}: the section 'rollout' must hold `key: value` lines")
    return validate_config(RolloutConfig, section, f"{path}: rollout")
