"""Consistency distillation: from anywhere on the teacher's path, the student answers with where the path ends.

At a place on the path the teacher takes one step towards the data; from there the student's own answer, held fixed,
says where the path ends, and that is what it learns to answer one step earlier (Song et al. 2023, arXiv:2303.01469,
eq. 7, with the student itself as the target network as in Song and Dhariwal 2023, arXiv:2310.14189; guidance inside the
teacher's step as in Luo et al. 2023, arXiv:2310.04378). In velocities: the target is `(noisy - end) / sigma`. So the
losses, the model's class, its cache and its files are those of training, and generation is the same with fewer steps.

Both streams go along one path: a latent frame's two noise levels are those that generation gives it at one step. It is
denoised upon a finished past, as in generation: the true one, or one that the student generated itself. Latent frames
of a chunk (`rollout.chunk`) go along it together.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from df_data.format.manifest import Manifest
from df_data.reading import Batch
from df_infer.config import RolloutConfig
from df_infer.rollout import heard_ahead
from df_infer.sampling.guidance import combined, guidance_scales
from df_infer.sampling.schedule import make_schedule
from df_models import DualForce, DualForceConfig
from df_models.errors import UserError
from df_models.flow import HistoryConfig, keyed_generator
from df_models.model.dualforce import Velocity
from df_train.config import ObjectiveConfig, TrainConfig
from df_train.data.lengths import longest_clip
from df_train.distill.config import DistillConfig
from df_train.distill.path import (
    advanced,
    draw_places,
    end_of,
    guess_of,
    levels_at,
    own_clip,
    placed,
    towards,
    upon,
)
from df_train.noising import HISTORY_STREAM, Banks, Shown, Streams, noise_like, show
from df_train.objective import Objective, predict

_UNTOUCHED = ObjectiveConfig()
_OWN = "own:"
"""Prefix of the noise that a clip of the student's own is generated from."""


class Distillation(Objective):
    """The objective of `task: distill`.

    Args:
        teacher: the frozen model, on the device that trains; sharded like the student or not.
        digest: the sha256 of its weights.
    """

    def __init__(self, config: TrainConfig, model: DualForceConfig, teacher: DualForce, digest: str) -> None:
        check(config, model)
        super().__init__(config, model, None)
        self._distill, self._rollout, self._teacher = config.distill, config.rollout, teacher
        self._chunk = config.rollout.chunk or 1
        self._heard = heard_ahead(model, config.rollout)
        self._digest = digest
        self._path = make_schedule(stretched(config.rollout, config.distill.levels), model.sigma_structure_max)
        self._own_path = make_schedule(config.rollout, model.sigma_structure_max)

    @property
    def shows_history(self) -> bool:
        """Every clip is shown upon a separate past."""
        return True

    @property
    def frozen(self) -> dict[str, str]:
        """The teacher: a run goes on with none other."""
        return {"teacher": self._digest}

    @property
    def extra_forwards(self) -> float:
        """Forward passes of a pass beside the one that is learnt from, on average."""
        return extra_forwards(self._distill, self._rollout)

    @torch.no_grad()
    def _shown(self, model: DualForce, batch: Batch, clean: Streams, step: int, banks: Banks | None) -> Shown:
        keys = {"seed": self._seed, "step": step}
        ids, device = batch.sample_ids.tolist(), clean.video.device
        shown = show(batch, clean, self._settings, HistoryConfig(mode="independent"), None, **keys)
        heard_B = torch.full([len(ids)], self._heard, device=device)
        shown = replace(shown, chunk=self._chunk, audio_future=heard_B)
        pinned_B = shown.sigma.video[:, 0] == 0
        history_noise = noise_like(clean, ids, prefix=HISTORY_STREAM, **keys)
        past, guesses = clean, self._rollout.struct_start == "previous"
        if self._takes_own(step):
            past, clean = own_clip(
                replace(shown, noise=noise_like(clean, ids, prefix=_OWN, **keys)),
                lambda state: predict(model, state),
                self._own_path,
                rounds=self._distill.rounds,
                pinned_B=pinned_B,
                guesses=guesses,
                history_noise=history_noise,
                level=self._rollout.context_noise,
            )
        places_BT = draw_places(self._path.steps, clean.video.shape[1], ids, chunk=shown.chunk, **keys).to(device)
        shown = upon(replace(shown, clean=clean), past, history_noise, self._rollout.context_noise)
        guess = guess_of(past.structure, shown.chunk) if guesses else None
        shown = placed(shown, levels_at(self._path, places_BT, pinned_B), places_BT == 0, guess)
        ahead = advanced(shown, self._taught(shown), levels_at(self._path, places_BT + 1, pinned_B))
        return towards(shown, end_of(ahead, lambda state: predict(model, state)))

    def _takes_own(self, step: int) -> bool:
        """Decided for a whole step, in all processes alike."""
        draw = torch.rand((), generator=keyed_generator(self._seed, step, 0, "own_histories"))
        return float(draw) < self._distill.own_histories

    def _taught(self, shown: Shown) -> Velocity:
        """The teacher's velocities, with its guidance."""
        with_all, settings = predict(self._teacher, shown), self._distill
        without, scales = list[Velocity](), list[float]()
        if settings.audio_guidance != 1.0:
            without.append(predict(self._teacher, replace(shown, audio=torch.zeros_like(shown.audio))))
            scales.append(settings.audio_guidance)
        if settings.text_guidance != 1.0 and shown.text is not None:
            without.append(predict(self._teacher, replace(shown, text=torch.zeros_like(shown.text))))
            scales.append(settings.text_guidance)
        return Velocity(*(combined(*stream, scales=scales) for stream in zip(with_all, *without)))


def extra_forwards(distill: DistillConfig, rollout: RolloutConfig) -> float:
    """Forward passes of a pass beside the one that is learnt from, on average: the teacher's, the student's own."""
    guides = (distill.audio_guidance != 1.0) + (distill.text_guidance != 1.0)
    return 2 + guides + distill.own_histories * distill.rounds * rollout.steps


def stretched(rollout: RolloutConfig, levels: int) -> RolloutConfig:
    """The rollout's settings with `levels` steps; the structure is clean after the same share of them."""
    own = rollout.structure_steps
    steps = None if own is None else own * levels // rollout.steps
    return rollout.model_copy(update={"steps": levels, "structure_steps": steps})


def check(config: TrainConfig, model: DualForceConfig, manifest: Manifest | None = None) -> None:
    """Refuse settings that distillation does not go with.

    Args:
        manifest: of the training split; None leaves out what it alone tells, the length of clips that are taken whole.

    Raises:
        UserError: with the first of them.
    """
    rollout, objective, distill = config.rollout, config.objective, config.distill
    if config.model.start_from is None:
        raise UserError("task=distill: there is no teacher; name a trained model by model.start_from")
    if config.adapter.kind != "none":
        raise UserError("task=distill: all weights of a student learn; leave adapter out")
    if distill.levels % rollout.steps:
        raise UserError(f"distill.levels={distill.levels} is no multiple of rollout.steps={rollout.steps}")
    if guided := guidance_scales(rollout):
        raise UserError(
            "task=distill: the student learns its teacher's guidance (distill.audio_guidance, distill.text_guidance); "
            f"set {', '.join(f'rollout.{name}_guidance=1' for name in guided)}"
        )
    if rollout.solver != "euler":
        raise UserError("task=distill: a student jumps along Euler's steps; set rollout.solver=euler")
    if rollout.chunk is None:
        raise UserError("task=distill: a student generates upon a past of its own; set rollout.chunk=1 or more")
    longest = longest_clip(config.data, manifest)
    if rollout.window + rollout.sinks < longest:
        raise UserError(
            f"task=distill: a student sees the whole past of its clips, of up to {longest} latent frames, but rollout."
            f"window={rollout.window} and rollout.sinks={rollout.sinks} show fewer; set rollout.window="
            f"{longest - rollout.sinks}, or lower data.num_frames"
        )
    if objective.flame.weight or objective.sync.weight or any(objective.extra.values()):
        raise UserError(
            "task=distill: a student learns from its teacher alone; set objective.flame.weight=0 and "
            "objective.sync.weight=0, and leave out objective.extra"
        )
    for name in ("history", "video_shift", "structure_tail"):
        if getattr(objective, name) != getattr(_UNTOUCHED, name):
            raise UserError(
                f"task=distill: noise levels and histories are those of the rollout, so objective.{name} reaches "
                "nothing; leave it out, or set it back to its default"
            )
    if objective.give_structure or objective.give_fields.share or objective.shorten_audio:
        raise UserError("task=distill: give_structure, give_fields and shorten_audio are not distilled; leave them out")
    for name in ("drop_audio", "drop_reference", "drop_text"):
        if getattr(objective, name):
            raise UserError(f"task=distill: guidance is within the student, so no condition drops; set {name}=0")
    if config.validation.every:
        raise UserError(
            "task=distill: a student's held-out losses say nothing about what it generates; set validation.every=0"
        )
    if distill.text_guidance != 1.0 and not model.text_dim:
        raise UserError("distill.text_guidance is set, but the model reads no text; set it to 1")
