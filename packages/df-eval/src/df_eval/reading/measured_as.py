"""What decides the numbers of one run, as a hash: equal ones need not be measured again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from df_data.format.manifest import read_manifest
from df_eval.config import EvalConfig, ReadersConfig
from df_eval.reading.reader_files import reader_hashes
from df_eval.study.programs import versions
from df_infer.config import OTHERS, TRUTH
from df_infer.run_dir import Run, RunDir, open_run
from df_models.device import choose_device
from df_models.machine import choose_precision
from df_models.model.adapter import weights_hash

NOT_DECIDING = frozenset({"device", "batch_size", "videos", "data", "checkpoint", "readers", "baseline"})
"""Settings that change no number, or are told by a hash of what they name."""


def measured_as(run: RunDir, config: EvalConfig, root: Path | None, files: ReadersConfig) -> str:
    """Hash of the weights (also of a model that makes the structure), the settings, the clips, the readers' files, the
    precision and the installed software.

    Args:
        root: the run's dataset; None: rendered clips.
        files: of the readers, resolved (`df_eval.reading.reader_files.reader_files`).
    """
    opened = open_run(run.root, config.checkpoint)
    maker = config.rollout.applied_to(opened.rollout).structure_from
    decides = {
        "weights": weights_hash(opened.model),
        "rollout": opened.rollout.model_dump(mode="json"),
        "config": config.model_dump(mode="json", exclude=set(NOT_DECIDING)),
        "dataset": None if root is None else read_manifest(root / "val").digest,
        "readers": reader_hashes(files),
        "dtype": choose_precision(config.dtype, choose_device(config.device)).name,
        "maker": maker if maker in (None, TRUTH, OTHERS) else _made_by(open_run(maker)),
        "software": versions(),
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def _made_by(maker: Run) -> dict[str, object]:
    return {"weights": weights_hash(maker.model), "rollout": maker.rollout.model_dump(mode="json")}


def measured_there(place: Path) -> str | None:
    """What was measured in a directory, by its metrics.json, which is written last; None: nothing whole."""
    try:
        found = json.loads((place / "metrics.json").read_text(encoding="utf-8"))["measured_as"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, str) else None
