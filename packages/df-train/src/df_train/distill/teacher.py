"""The teacher of a distillation: the model that the student starts from, frozen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from df_models import DualForce
from df_models.errors import UserError
from df_models.files import sha256_file
from df_models.model.pretrained import WEIGHTS_FILE, find_model
from df_train.begin import build_model
from df_train.config import TrainConfig
from df_train.processes.distributed import World
from df_train.processes.sharding import spread


def load_teacher(config: TrainConfig, decided: Mapping[str, Any], world: World) -> tuple[DualForce, str]:
    """The teacher, on the device that trains and sharded like the student, and the sha256 of its weights' file.

    Args:
        decided: as in :func:`df_train.begin.build_model`, which makes the student alike.

    Raises:
        UserError: it cannot be read, or was not trained.
    """
    assert config.model.start_from is not None
    teacher = build_model(config, decided)
    if teacher.config.has_structure and not teacher.has_structure_statistics:
        raise UserError(f"task=distill: model.start_from={config.model.start_from} was not trained; train it first")
    teacher.requires_grad_(False).to(world.device).eval()
    spread(teacher, config, world, lambda line: None)
    return teacher, sha256_file(find_model(config.model.start_from) / WEIGHTS_FILE)
