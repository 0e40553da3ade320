"""The commands that a study runs. They are named here alone; df-train is never imported."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from df_models.cli_support import PACKAGES
from df_models.errors import UserError

LIBRARIES = ("torch", "numpy", "scipy", "torchmetrics", "av", "diffusers", "transformers", "mediapipe", "onnxruntime",
             "pillow", "numba", "torchao", "peft")  # fmt: skip
"""That compute what is trained or measured."""


@dataclass(frozen=True)
class Programs:
    """How each command is called; tests put stubs in their place.

    Attributes:
        corpus: makes a synthetic corpus (`df_eval.study.corpus`).
    """

    train: tuple[str, ...] = (sys.executable, "-m", "df_train")
    evaluate: tuple[str, ...] = (sys.executable, "-m", "df_eval")
    corpus: tuple[str, ...] = (sys.executable, "-m", "df_eval.study.corpus")

    def shown(self, argv: Sequence[str]) -> list[str]:
        """A command as a user gives it: by the program's own name."""
        corpus = ["python", *self.corpus[1:]]
        names = ((self.train, ["df-train"]), (self.evaluate, ["df-eval"]), (self.corpus, corpus))
        for start, name in names:
            if tuple(argv[: len(start)]) == start:
                return [*name, *argv[len(start) :]]
        return [*argv]


def printed_config(argv: Sequence[str]) -> str:
    """What a command prints for ``--print-config``.

    Raises:
        UserError: it refuses, in its own words, or it is not installed.
    """
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*argv, "--print-config"], capture_output=True, text=True, env=environment)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise UserError(said[-1])
    return done.stdout


@cache
def _code() -> str:
    """Digest of the packages' files (source and embedded weights), without this folder's: what a study runs, not how
    it is studied."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        spec = importlib.util.find_spec(package.replace("-", "_"))  # the top level: nothing is imported
        for root in map(Path, (spec and spec.submodule_search_locations) or ()):
            for path in sorted(path for path in root.rglob("*") if path.is_file()):
                hidden = "__pycache__" in path.parts or path.name.startswith(".") or path.name.endswith("~")
                if not hidden and Path(__file__).parent not in path.parents:
                    digest.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def versions() -> dict[str, str]:
    """What of the installed software decides a run: the versions, and our own code to the byte.

    A version stays the same between releases, while the code is worked on; others' libraries are told by theirs.
    """
    found: dict[str, str] = {"code": _code()}
    for package in (*PACKAGES, *LIBRARIES):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
