"""The run directory: what stands where in it. df-train writes it, df-infer and df-eval read it.

    runs/<name>/
      run.json             who wrote it, the digests of the dataset it was trained on, and which settings were changed
                           at which step when it went on
      config.yaml          every setting, resolved
      metrics.jsonl        the log (`df_infer.run_log`)
      checkpoints/step-N/  to resume
      model/               averaged weights (safetensors and config.json), to use; adapter/ in it is what alone was
                           trained of them, if that is a low-rank adapter (`df_models.model.adapter`)
      models/step-N/       milestones of training, in the same form
      samples/             videos of validation clips; loss.png is drawn beside them
      profile/             traces of some steps, if they were asked for
      eval/                what df-eval measured of model/
      eval/step-N/         and of a milestone

Nothing in it depends on where it lies: a run may be moved, renamed or copied to another machine. What it needs from
outside is its dataset, which is known by its digest and not by its place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from df_infer.config import RolloutConfig
from df_models.errors import UserError
from df_models.files import atomic_write
from df_models.settings import read_tree, validate_config

WRITER = "df-train"
MODEL = "model"
ADAPTER = "adapter"
MODEL_FILES = ("config.json", "model.safetensors")
FORMAT = 1

_STEP = re.compile(r"step-(\d+)")


class Changed(NamedTuple):
    """Settings with which a run went on from a step otherwise than before: by their dotted names, (before, after)."""

    step: int
    settings: Mapping[str, tuple[Any, Any]]


@dataclass(frozen=True)
class RunRecord:
    """What `run.json` says.

    Attributes:
        data_root: the dataset's directory at the time of training, absolute, or its URL; where to look first.
        splits: the digest of each split that was there (`df_data.format.manifest.Manifest.digest`).
        changes: of settings while it was trained; `config.yaml` has the last values alone.
    """

    data_root: str = ""
    splits: Mapping[str, str] = field(default_factory=dict)
    changes: Sequence[Changed] = ()


@dataclass(frozen=True)
class RunDir:
    """Paths of one run, and what can be read from them."""

    root: Path

    @property
    def name(self) -> str:
        return self.root.resolve().name

    @property
    def record(self) -> Path:
        return self.root / "run.json"

    @property
    def config(self) -> Path:
        return self.root / "config.yaml"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def model(self) -> Path:
        return self.root / MODEL

    @property
    def milestones(self) -> Path:
        return self.root / "models"

    def milestone(self, step: int) -> Path:
        """The averaged model after so many steps."""
        return self.milestones / f"step-{step}"

    @property
    def milestone_folders(self) -> dict[int, Path]:
        """The folders of milestones by step, rising; one that was not written to its end holds no whole model."""
        named = ((_STEP.fullmatch(path.name), path) for path in self.milestones.glob("step-*"))
        return dict(sorted((int(match[1]), path) for match, path in named if match))

    @property
    def milestone_steps(self) -> list[int]:
        """Steps of the milestones that are there, rising."""
        return [step for step, path in self.milestone_folders.items() if is_model(path)]

    @property
    def samples(self) -> Path:
        return self.root / "samples"

    @property
    def eval(self) -> Path:
        return self.root / "eval"

    def evaluation(self, checkpoint: int | None = None) -> Path:
        """Where df-eval writes about the model, or about the milestone of a step."""
        return self.eval if checkpoint is None else self.eval / f"step-{checkpoint}"

    @property
    def profile(self) -> Path:
        return self.root / "profile"

    @property
    def tensorboard(self) -> Path:
        return self.root / "tensorboard"

    @property
    def wandb(self) -> Path:
        return self.root / "wandb"

    @property
    def wandb_id(self) -> Path:
        return self.root / "wandb-id.txt"

    @property
    def loss_plot(self) -> Path:
        return self.root / "loss.png"

    @property
    def written(self) -> tuple[Path, ...]:
        """Everything that a run may hold; `run.json` comes last."""
        models = self.checkpoints, self.model, self.milestones
        folders = self.samples, self.eval, self.profile, self.tensorboard, self.wandb
        return (*models, *folders, self.config, self.metrics, self.loss_plot, self.wandb_id, self.record)

    @property
    def finished(self) -> bool:
        """Whether a trained model was exported."""
        return is_model(self.model)

    @property
    def ours(self) -> bool:
        """Whether df-train wrote this directory: its `run.json` is the proof."""
        try:
            return read_record(self.record) is not None
        except UserError:
            return False

    def read_config(self) -> dict[str, Any]:
        """`config.yaml` as plain data.

        Raises:
            UserError: there is none, or it cannot be read.
        """
        if not self.config.is_file():
            raise UserError(
                f"{self.root} is no run directory: it holds no {self.config.name}; give one that df-train wrote"
            )
        return read_tree(self.config)

    def section(self, name: str) -> dict[str, Any]:
        """A section of `config.yaml`, empty if it has none.

        Raises:
            UserError: the config cannot be read, or the section is no mapping.
        """
        section = self.read_config().get(name)
        if section is None:
            return {}
        if not isinstance(section, dict):
            raise UserError(f"{self.config}: the section {name!r} must hold `key: value` lines")
        return section

    def places(self, root: str, record: RunRecord) -> list[Path]:
        """Where the run's dataset may lie, likeliest first: as the config says it, where it was, beside the run.

        Args:
            root: a directory as the config names it (`data.root`). A relative one is looked for in the working
                directory, and in every directory above the run, for runs that were moved together with their data.
        """
        named = [] if Path(root).is_absolute() else [above / root for above in self.root.resolve().parents]
        was = [Path(record.data_root)] if Path(record.data_root).is_absolute() else []
        return [Path(root), *was, *named]

    def write_record(self, record: RunRecord) -> None:
        """Write `run.json`."""
        self.root.mkdir(parents=True, exist_ok=True)
        dataset = {"root": record.data_root, "splits": dict(record.splits)}
        version = metadata.version("df-infer")
        tree: dict[str, Any] = {"format": FORMAT, "written_by": WRITER, "version": version, "dataset": dataset}
        if record.changes:
            tree["changes"] = [change._asdict() for change in record.changes]
        atomic_write(self.record, json.dumps(tree, indent=1) + "\n")


def read_record(path: Path) -> RunRecord | None:
    """What a `run.json` says; None if there is no such file.

    Raises:
        UserError: it is damaged, or of another format or program.
    """
    if not path.is_file():
        return None
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        if tree["written_by"] != WRITER or tree["format"] != FORMAT:
            raise UserError(f"{path} is not of {WRITER} or not of format {FORMAT}, which this version reads")
        splits = {str(name): str(identity) for name, identity in tree["dataset"]["splits"].items()}
        changes = tuple(
            Changed(int(change["step"]), {str(name): (old, new) for name, (old, new) in change["settings"].items()})
            for change in tree.get("changes", ())
        )
        return RunRecord(str(tree["dataset"]["root"]), splits, changes)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} cannot be read; restore what df-train wrote") from error


class Trained(NamedTuple):
    """What a run's config tells of what its training showed.

    Attributes:
        distilled: the model is a student (`task: distill`), which saw the noise levels of its rollout alone.
        structure_tail: share of the frames whose structure was above the model's `sigma_structure_max`
            (`objective.structure_tail`); None: not told.
        shorten_audio: share of the clips that heard less ahead than the model can (`objective.shorten_audio`); None:
            not told.
        audio_future: slots that a student heard ahead, those of its rollout; None: all.
    """

    distilled: bool = False
    structure_tail: float | None = None
    shorten_audio: float | None = None
    audio_future: int | None = None


UNTOLD = Trained()
"""How a model was trained that lies in no run."""


@dataclass(frozen=True)
class Run:
    """What generation needs of a run.

    Attributes:
        model: directory of safetensors and config.json.
        rollout: the run's own rollout settings, or the defaults for a bare model directory.
        trained: how its model was trained.
    """

    model: Path
    rollout: RolloutConfig
    trained: Trained = UNTOLD

    @property
    def prompt(self) -> Path | None:
        """The encoded prompt that the model was trained with; None if there is none beside it."""
        from df_models.text import PROMPT_FILE  # it loads torch, for which an error of the run's does not wait

        path = self.model / PROMPT_FILE
        return path if path.is_file() else None


def open_run(path: str | Path, checkpoint: int | None = None) -> Run:
    """Open ``runs/<name>``, a model in it (``model/`` or ``models/step-N/``), or any saved model's directory.

    Args:
        checkpoint: step of the run's milestone to take instead of ``model/``.

    Raises:
        UserError: it is none of these, or training has not written that model into it.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"no such run: {path}; give a directory that df-train wrote, such as runs/quickstart")
    if is_model(path):
        if checkpoint is not None:
            raise UserError(f"{path} is a model, and only runs have milestones; leave out --checkpoint")
        run = _run_around(path.resolve())
        return Run(path, RolloutConfig()) if run is None else Run(path, _rollout(run), _trained(run))
    run = RunDir(path)
    if not run.config.is_file():
        _check_no_dataset(path)
        files = " and ".join(MODEL_FILES)
        raise UserError(f"{path} is no run and no model: a run holds {run.config.name} and {MODEL}/, a model {files}")
    return Run(require_model(run, checkpoint), _rollout(run), _trained(run))


def open_run_dir(path: str | Path, checkpoint: int | None = None) -> RunDir:
    """Open ``runs/<name>`` whose training has written a model, or the milestone of a step.

    Raises:
        UserError: it is not there, or is no run, its config cannot be read, or that model is not in it.
    """
    run = RunDir(Path(path))
    if not run.root.is_dir():
        raise UserError(f"no such run: {path}; give a directory that df-train wrote, such as runs/quickstart")
    run.read_config()
    require_model(run, checkpoint)
    return run


def require_model(run: RunDir, checkpoint: int | None = None) -> Path:
    """The directory of a run's trained model, or of the milestone of a step.

    Raises:
        UserError: it is not there.
    """
    if checkpoint is not None:
        if is_model(run.milestone(checkpoint)):
            return run.milestone(checkpoint)
        there = ", ".join(map(str, run.milestone_steps))
        known = f"there are those of steps {there}" if there else "there are none (df-train: checkpoint.milestones)"
        raise UserError(
            f"the run {run.root} has no milestone of step {checkpoint}; {known}; without --checkpoint its final model "
            "is taken"
        )
    if not run.finished:
        _check_no_dataset(run.root)
        raise UserError(f"the run {run.root} has no trained model yet ({run.model} is missing); let df-train finish it")
    return run.model


def _check_no_dataset(path: Path) -> None:
    for name in ("manifest.json", "*/manifest.json"):
        for manifest in path.glob(name):
            raise UserError(f"{path} is a dataset (it holds {manifest}), and no run; give one that df-train wrote")


def find_adapter(path: str | Path) -> Path:
    """The directory of an adapter: itself, or that of a model (``models/step-N``) or a run that it was trained for.

    Raises:
        UserError: there is none.
    """
    from df_models.model.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS, is_adapter  # loads torch

    path = Path(path)
    for place in (path, path / ADAPTER, path / MODEL / ADAPTER):
        if is_adapter(place):
            return place
    files = f"{ADAPTER_CONFIG} and {ADAPTER_WEIGHTS}"
    raise UserError(f"{path} is no adapter ({files}) and no run that trained one (df-train: adapter.kind=lora)")


def is_model(path: Path) -> bool:
    """Whether a directory holds a saved model."""
    return all((path / name).is_file() for name in MODEL_FILES)


def _run_around(model: Path) -> RunDir | None:
    """The run whose ``model`` or milestone a directory is."""
    root = model.parent
    if root.name == "models" and _STEP.fullmatch(model.name):
        root = root.parent
    elif model.name != MODEL:
        return None
    return RunDir(root) if (root / "config.yaml").is_file() else None


def _rollout(run: RunDir) -> RolloutConfig:
    return validate_config(RolloutConfig, run.section("rollout"), f"{run.config}: rollout")


def _trained(run: RunDir) -> Trained:
    distilled = run.read_config().get("task") == "distill"
    return Trained(distilled, _share(run, "structure_tail"), _share(run, "shorten_audio"), _rollout(run).audio_future)


def _share(run: RunDir, name: str) -> float | None:
    share = run.section("objective").get(name)
    if share is not None and (isinstance(share, bool) or not isinstance(share, int | float)):
        raise UserError(f"{run.config}: objective.{name} must be a number, not {share!r}")
    return share
