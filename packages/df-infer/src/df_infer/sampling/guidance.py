"""Classifier-free guidance on audio, text and the frame's own structure: each condition away, one prediction more.

A model learns to predict without audio or text by clips that lack them (`objective.drop_audio`, `drop_text`). Without
structure it learns it by Diffusion Forcing itself: the two streams have noise levels of their own, so structure of
nothing but noise beside any video is part of the training (where `objective.structure_tail` is above 0), as noise in
the history is for history guidance (Song et al. 2025, arXiv:2502.06764).
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from df_infer.config import RolloutConfig
from df_infer.run_dir import UNTOLD, Trained
from df_models import DualForceConfig
from df_models.errors import UserError
from df_models.flow import guided

CONDITIONS = ("audio", "text", "structure")


def guidance_scales(config: RolloutConfig) -> dict[str, float]:
    """Return the scale of each condition that is guided, in the order of the batch's copies."""
    scales = {name: getattr(config, f"{name}_guidance") for name in CONDITIONS}
    return {name: scale for name, scale in scales.items() if scale != 1.0}


def check_guidance(model: DualForceConfig, config: RolloutConfig, trained: Trained = UNTOLD) -> None:
    """Refuse guidance on what a model does not read, or on structure without which its training never showed video.

    Args:
        trained: how the model was trained, as far as that is known.

    Raises:
        UserError: naming the setting.
    """
    lacking = {
        "audio": None if model.hears else "hears no audio",
        "text": None if model.text_dim else "reads no text (text_dim=0)",
        "structure": why_no_structure_guidance(model, trained),
    }
    for name in guidance_scales(config):
        if lacking[name]:
            raise UserError(f"rollout.{name}_guidance is given, but the model {lacking[name]}; leave it out")


def why_no_structure_guidance(model: DualForceConfig, trained: Trained = UNTOLD) -> str | None:
    """Return why a model's video cannot be guided by its structure; None: it can, as far as is known."""
    if not model.bridge_to_video:
        return "has no structure that its video reads"
    if model.structure_given == "always":
        return "was always given its structure clean, and never saw its video without (objective.give_structure=1)"
    if trained.distilled:
        return "is a distilled student, which knows no noise levels but those of its rollout (task=distill)"
    if trained.structure_tail == 0 and model.sigma_structure_max < 1:
        return (
            f"learnt no structure noisier than sigma_structure_max={model.sigma_structure_max:g}, and so no video "
            "without any (objective.structure_tail=0)"
        )
    return None


def combined(conditional: Tensor, *without: Tensor, scales: Iterable[float]) -> Tensor:
    """Return the prediction with all conditions, and what guidance on each adds to it.

    ``v + sum_i (s_i - 1) (v - v_i)``, with v_i the prediction without condition i.
    """
    total = conditional
    for other, scale in zip(without, scales, strict=True):
        total = total + (guided(conditional, other, scale) - conditional)
    return total
