"""Structure that another model predicts, to be given: structure as a condition, made first and apart.

`rollout.structure_from` names a run or model; its own rollout makes the structure from the same audio and portrait, and
the generating model is given it whole (:mod:`df_infer.sampling.drive`). Where clips have a true structure (samples of
training, evaluation), :data:`TRUTH` gives that instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from df_infer.config import OTHERS, TRUTH, RolloutConfig
from df_infer.rollout import Rollout
from df_infer.run_dir import open_run
from df_models import DualForce, DualForceConfig
from df_models.errors import UserError
from df_models.structure import require_same

HEARD = ("audio_encoder", "audio_pool", "audio_dim")
SEEN = ("video_vae", "latent_channels", "reference_encoder")
"""What two models must have alike to be shown the same stored features: what they hear, and, with a video, see."""


def check_maker(mine: DualForceConfig, maker: DualForceConfig, path: str) -> None:
    """Refuse a model that makes no structure, or another kind of it than is to be given.

    Raises:
        UserError: naming it.
    """
    if maker.structure_given == "always":
        raise UserError(
            f"rollout.structure_from={path}: that model takes structure as a condition and makes none either; name a "
            "model that learnt to make it"
        )
    if not (mine.has_structure and maker.has_structure):
        whose = "that model" if mine.has_structure else "this model"
        raise UserError(f"rollout.structure_from={path}: {whose} has no structure (streams=video)")
    require_same(mine.structure_layout, maker.structure_layout, ("the model", f"rollout.structure_from={path}"))
    if mine.structure_dim != maker.structure_dim:
        raise UserError(
            f"rollout.structure_from={path} makes structure of {maker.structure_dim} entries, the model takes "
            f"{mine.structure_dim}"
        )


def found(path: str) -> str:
    """Return where the run or model is that makes the structure.

    Raises:
        UserError: it is not there; it is looked for from the working directory.
    """
    if not Path(path).exists():
        raise UserError(
            f"rollout.structure_from={path}: there is no such run or model, seen from the working directory; name it "
            "anew (df-infer: --structure-from RUN, others: rollout.structure_from=RUN)"
        )
    return path


def check_no_truth(rollout: RolloutConfig) -> None:
    """Refuse the true structure, of a clip or of another one, where there is none.

    Raises:
        UserError: with what to give instead.
    """
    if rollout.structure_from in (TRUTH, OTHERS):
        raise UserError(
            f"rollout.structure_from={rollout.structure_from}, but speech and a portrait have no true structure; give "
            "a motion (--drive motion.npz), or name a run whose model makes it (--structure-from RUN)"
        )


def open_maker(path: str, model: DualForceConfig, device: torch.device) -> tuple[DualForce, RolloutConfig]:
    """Open the model that makes the structure for clips whose features are stored, with its own rollout.

    Raises:
        UserError: it is not there, or is for other structure or features than ``model``.
    """
    run = open_run(found(path))
    maker = DualForce.from_pretrained(run.model).to(device).eval()
    check_maker(model, maker.config, path)
    for name in (*HEARD, *SEEN) if maker.config.has_video else HEARD:
        if getattr(maker.config, name) != getattr(model, name):
            raise UserError(
                f"rollout.structure_from={path} has {name}={getattr(maker.config, name)}, the model "
                f"{getattr(model, name)}; name one that was trained on the same features"
            )
    return maker, run.rollout


def raw_structure(maker: DualForce, rollouts: Iterator[Rollout]) -> Iterator[Tensor]:
    """Yield what a model makes, ``[B, C, 4, V]`` in its layout's units, as a
    :class:`df_infer.sampling.drive.Drive` takes it.

    The four slots of latent frame 0 are one pixel frame: all are given as the last one, which is what is seen of it.
    """
    for chunk in rollouts:
        structure = maker.denormalize_structure(chunk.structure)
        if chunk.frame == 0:
            structure = torch.cat([structure[:, :1, -1:].expand_as(structure[:, :1]), structure[:, 1:]], dim=1)
        yield structure
