"""The studies that are shipped: every arm is one that df-train can train and df-eval can measure."""

from __future__ import annotations

from pathlib import Path

import pytest

from df_eval.config import EvalConfig
from df_eval.metrics import SPECS
from df_eval.study.arms import Arm, arms_of, nested, overrides, with_places
from df_eval.study.config import StudyConfig
from df_models.settings import Location, load_config
from df_train.cli import task_of
from df_train.config import TrainConfig
from df_train.preflight import preflight
from df_train.sync.config import SyncConfig

ROOT = Path(__file__).parents[3]
STUDIES = sorted((ROOT / "configs" / "study").glob("*.yaml"))


def settings(arm: Arm) -> list[str]:
    return [with_places(line, {name: f"runs/{name}" for name in arm.needs}) for line in overrides(arm.train)]


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_arm_can_be_trained_and_measured(
    path: Path, tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    study = load_config(StudyConfig, path)
    assert path.stem.replace("_", "-") == study.name
    lengths: dict[str, tuple[int, ...]] = {}
    corpora: dict[str, object] = {}
    for name, arm in arms_of(study).items():
        if task_of(Path(arm.base), settings(arm)) == "sync":
            config = load_config(SyncConfig, arm.base, settings(arm))
        else:
            config = load_config(TrainConfig, arm.base, settings(arm))
            assert config.budget.minutes is None and config.max_minutes is None
            if not arm.needs:  # what it needs is not there
                there = {"device": "cpu", "run_dir": Location(tmp_path / name)}
                root = tmp_path / "data" if config.data.synth else dataset  # for one that is built from videos
                data = config.data.model_copy(update={"root": Location(root)})
                preflight(config.model_copy(update={**there, "data": data}))
        assert corpora.setdefault(str(config.data.root), config.data.synth) == config.data.synth
        told = [*overrides(nested(study.evaluation.set)), *overrides(arm.evaluation)]
        lengths[name] = load_config(EvalConfig, study.evaluation.config, told).frames
    assert study.hypotheses, "a study without a claim decides nothing"
    for claim in study.hypotheses:
        assert claim.metric in SPECS and all(claim.frames in lengths[arm] for arm in claim.arms)
    assert set(study.metrics) <= set(SPECS)
