"""What evaluation needs of a run directory, read as a file contract: config.yaml, model/, metrics.jsonl."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from df_data.reading.source import is_remote
from df_models.errors import UserError


@dataclass(frozen=True)
class RunFiles:
    """A run directory.

    Attributes:
        path: the directory.
        config: config.yaml as plain data.
    """

    path: Path
    config: dict[str, Any]

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def data_root(self) -> Path:
        """The dataset the run was trained on (`data.root`).

        Raises:
            UserError: the config does not name it, or names a URL.
        """
        data = self.config.get("data")
        root = data.get("root") if isinstance(data, dict) else None
        if not isinstance(root, str):
            raise UserError(f"{self.path / 'config.yaml'} names no dataset (data.root); restore what df-train wrote")
        if is_remote(root):
            raise UserError(
                f"the run was trained on {root}, and evaluation reads clips from a directory; copy the dataset's "
                f"config.yaml and val/ to a disk and name that directory in {self.path / 'config.yaml'} (data.root)"
            )
        return Path(root)

    @property
    def synth(self) -> dict[str, Any] | None:
        """The recipe of the synthetic corpus (`data.synth`), if the run made its own."""
        data = self.config.get("data")
        synth = data.get("synth") if isinstance(data, dict) else None
        return synth if isinstance(synth, dict) else None

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"


def open_run_files(path: str | Path) -> RunFiles:
    """Open ``runs/<name>``.

    Raises:
        UserError: it is not there, or is no run, or its config cannot be read.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(f"no such run: {path}; give a directory that df-train wrote, such as runs/quickstart")
    file = path / "config.yaml"
    if not file.is_file():
        raise UserError(f"{path} is no run directory: it holds no config.yaml; give one that df-train wrote")
    try:
        tree = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is not valid YAML; restore the config that df-train wrote") from error
    if not isinstance(tree, dict):
        raise UserError(f"{file} holds no `key: value` lines; restore the config that df-train wrote")
    if not (path / "model").is_dir():
        raise UserError(
            f"the run {path} has no trained model yet ({path / 'model'} is missing); let df-train finish it"
        )
    return RunFiles(path, tree)
