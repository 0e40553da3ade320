"""The training objective: flow matching on both streams with a noise level per latent frame, and the FLAME alignment.

Losses are means over frames that are learnt; a batch's total divides by all its frames, which every process has the
same number of, so that gradients averaged over processes are those of the whole batch. A pass over long clips thus
weighs what one over short clips does (`data.buckets`), and a clip the same at any length.

Shape legend: B clips, T latent frames, C latent channels, h, w latent cells, S = 4 slots, D features, F FLAME entries.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from df_data.reading import Batch
from df_models import DualForce, DualForceConfig
from df_models.errors import UserError
from df_models.flow import clean_from_velocity, velocity_target
from df_models.model.dualforce import Velocity
from df_train.config import ObjectiveConfig, TrainConfig
from df_train.data.crops import begun_anew
from df_train.figures.meter import LossTerm
from df_train.given import given_structure
from df_train.hearing import check_hearing, slots_ahead
from df_train.noising import Banks, Shown, Streams, clean_streams, history_config, show
from df_train.schedule import decayed_weight
from df_train.sync.loss import SyncJudge, open_judge

Record = Callable[[Tensor], None]
"""Records the model's errors once it is known whether their step is taken; given 1.0 if it is skipped, else 0.0."""


class Losses(NamedTuple):
    """The weighted total to differentiate, every loss frame by frame for the log, and what is left to record."""

    total: Tensor
    terms: dict[str, LossTerm]
    record: Record | None = None


class FlameScale(NamedTuple):
    """Mean and standard deviation `[F]` of the dataset's FLAME vectors."""

    mean: Tensor
    std: Tensor


@dataclass(frozen=True)
class Answer:
    """What the losses are measured on: the batch, how it was shown, and the model's answer.

    Attributes:
        flow: the velocity errors of :func:`flow_terms`, computed once for all that read them.
        flame: scale of the FLAME vectors, None if the dataset or the model has none.
        judge: the frozen lip-sync expert, None if it has no weight.
    """

    model: DualForce
    batch: Batch
    shown: Shown
    velocity: Velocity
    flow: Mapping[str, LossTerm]
    flame: FlameScale | None = None
    judge: SyncJudge | None = None


@dataclass(frozen=True)
class LossSpec:
    """One loss; :data:`LOSSES` is the list of them, and to add one is to add its entry (docs/how-to/loss.md).

    Attributes:
        definition: one sentence for people.
        term: measures it frame by frame.
        weight: its weight at a step; by default what `objective.extra` says under the loss's name, 0 if nothing.
        of: the stream that it is of; without that stream there is no such loss, and a weight for it is refused.
        always: it is measured and logged at weight 0 too, since it costs nothing.
        lacking: why it cannot be measured with a model and a dataset's FLAME scale, with the setting that leaves it
            out; None: it can.
    """

    definition: str
    term: Callable[[Answer], LossTerm]
    weight: Callable[[ObjectiveConfig, int], float] | None = None
    of: Literal["video", "structure"] | None = None
    always: bool = False
    lacking: Callable[[DualForceConfig, FlameScale | None], str | None] = lambda model, flame: None


class Objective:
    """Losses of a batch as a function of (model, batch, step); holds settings and no state."""

    def __init__(self, config: TrainConfig, model: DualForceConfig, flame: FlameScale | None) -> None:
        """Args: `flame`: the scale of the FLAME vectors, None if the dataset or the model has none."""
        self._settings, self._seed = config.objective, config.seed
        self._levels = history_config(config.objective, model.sigma_structure_max)
        self._given = given_structure(config.objective, model)
        check_hearing(config.objective, model)
        self._future = model.audio_future
        self._model = model
        self._flame = flame
        self._judge = open_judge(config.objective.sync, model)
        check_losses(config.objective, model, flame)

    @property
    def names(self) -> tuple[str, ...]:
        """The losses that are measured and logged: those with a weight, and those that cost nothing."""
        losses = ((name, loss) for name, loss in LOSSES.items() if _has(self._model, loss))
        return tuple(name for name, loss in losses if loss.always or weight_of(name, self._settings, 0) > 0)

    @property
    def frozen(self) -> dict[str, str]:
        """The sha256 of each frozen model that the losses need, by what it is; a run goes on with the same."""
        return {}

    @property
    def extra_forwards(self) -> float:
        """Forward passes of a pass beside the one that is learnt from, on average."""
        return 0.0

    @property
    def shows_history(self) -> bool:
        """Whether the model is shown a copy of every clip as its past."""
        return self._levels.separate_history

    def weights(self, step: int) -> dict[str, float]:
        """The weight of each loss at a step."""
        return {name: weight_of(name, self._settings, step) for name in self.names}

    def follow(self, settings: ObjectiveConfig) -> None:
        """Go on with weights that a time budget has fitted anew."""
        self._settings = settings

    def __call__(self, model: DualForce, batch: Batch, step: int, banks: Banks | None) -> Losses:
        """Show the batch to the model at step `step` and measure its answer."""
        batch = begun_anew(batch)
        clean = clean_streams(model, batch)
        shown = self._shown(model, batch, clean, step, banks)
        answer = self.answer(model, batch, shown)
        terms = {name: clip_weighted(term, batch.weight) for name, term in self.terms(answer).items()}
        total = total_loss(terms, self.weights(step))
        if banks is None:
            return Losses(total, terms)
        predicted = Streams(*(stream.detach() for stream in predicted_clean(answer.velocity, shown)))

        def record(skip: Tensor) -> None:
            # what is not a number is not recorded
            kept = Streams(*(stream.masked_fill(skip.bool(), torch.nan) for stream in predicted))
            banks.record(kept, shown)

        return Losses(total, terms, record)

    def _shown(self, model: DualForce, batch: Batch, clean: Streams, step: int, banks: Banks | None) -> Shown:
        keys = {"seed": self._seed, "step": step}
        shown = show(batch, clean, self._settings, self._levels, banks, **keys)
        if self._given is not None:
            shown = self._given.give(shown, batch.sample_ids.tolist(), **keys)
        if self._settings.shorten_audio > 0:
            ahead = slots_ahead(self._settings.shorten_audio, self._future, batch.sample_ids.tolist(), **keys)
            shown = replace(shown, audio_future=ahead.to(clean.video.device))
        return shown

    def answer(self, model: DualForce, batch: Batch, shown: Shown) -> Answer:
        """The model's answer to what it is shown.

        Raises:
            UserError: the model reads text, and a clip has none.
        """
        if model.config.text_dim and batch.text is None:
            raise UserError(f"a clip of {', '.join(batch.keys)} holds no text features; build the dataset again")
        velocity = predict(model, shown)
        flow = flow_terms(velocity, shown, batch.mouth_mask)
        return Answer(model, batch, shown, velocity, flow, self._flame, self._judge)

    def terms(self, answer: Answer) -> dict[str, LossTerm]:
        """Every loss by name, frame by frame, all clips counting alike."""
        return {name: LOSSES[name].term(answer) for name in self.names}


def predict(model: DualForce, shown: Shown) -> Velocity:
    """The model's velocities for what it is shown."""
    return model(
        shown.noisy.video,
        shown.noisy.structure,
        shown.audio if model.config.audio_dim else None,
        shown.sigma.video,
        shown.sigma.structure,
        shown.reference_latent,
        shown.reference_tokens if model.config.reads_reference else None,
        shown.text if model.config.text_dim else None,
        reference_frame=shown.reference_frame,
        history=shown.history,
        chunk=shown.chunk,
        structure_known=shown.known,
        audio_future=shown.audio_future,
    )


def predicted_clean(velocity: Velocity, shown: Shown) -> Streams:
    """What the velocities say the clean streams are."""
    return Streams(predicted_video(velocity.video, shown), predicted_structure(velocity.structure, shown))


def predicted_video(velocity_BTChw: Tensor, shown: Shown) -> Tensor:
    """What the velocity says the clean latents are."""
    return clean_from_velocity(shown.noisy.video, velocity_BTChw, shown.sigma.video)


def predicted_structure(velocity_BTSV: Tensor, shown: Shown) -> Tensor:
    """What the velocity says the clean structure is; entries that are given are what they are."""
    clean = clean_from_velocity(shown.noisy.structure, velocity_BTSV, shown.sigma.structure)
    return clean if shown.known is None else torch.where(shown.known, shown.clean.structure, clean)


def flow_terms(velocity: Velocity, shown: Shown, mouth_BThw: Tensor) -> dict[str, LossTerm]:
    """Velocity errors of both streams.

    `video` is the mean over all cells of a frame. `mouth` is the mean over the cells in the mouth box and counts as
    their share of the frame, so that in `video + k * mouth` a mouth cell weighs `1 + k` times another. `structure` is
    the mean over the entries of a frame that are not given.
    """
    of_video = {} if velocity.video.shape[2] == 0 else _video_terms(velocity, shown, mouth_BThw)
    if velocity.structure.shape[-1] == 0:
        return of_video
    slots_BTS = _mean_of_unknown(_square_error(velocity.structure, shown, "structure"), shown.known)
    learnt_BT = shown.learnt.structure.float()
    return of_video | {"structure": LossTerm(slots_BTS.mean(dim=-1), learnt_BT, shown.sigma.structure)}


def _video_terms(velocity: Velocity, shown: Shown, mouth_BThw: Tensor) -> dict[str, LossTerm]:
    cells_BThw = _square_error(velocity.video, shown, "video").mean(dim=2)
    learnt_BT = shown.learnt.video.float()
    share_BT = mouth_BThw.mean(dim=(-2, -1))
    mouth_BT = (cells_BThw * mouth_BThw).mean(dim=(-2, -1)) / share_BT.clamp_min(1e-6)
    return {
        "video": LossTerm(cells_BThw.mean(dim=(-2, -1)), learnt_BT, shown.sigma.video),
        "mouth": LossTerm(mouth_BT, learnt_BT * share_BT, shown.sigma.video),
    }


def _square_error(velocity: Tensor, shown: Shown, name: str) -> Tensor:
    target = velocity_target(getattr(shown.clean, name), getattr(shown.noise, name))
    return (velocity.float() - target).square()


def _mean_of_unknown(error_BTSV: Tensor, known_BTSV: Tensor | None) -> Tensor:
    if known_BTSV is None:
        return error_BTSV.mean(dim=-1)
    unknown = (~known_BTSV).float()
    return (error_BTSV * unknown).sum(dim=-1) / unknown.sum(dim=-1)


def flame_term(model: DualForce, velocity: Tensor, shown: Shown, flame_BTSF: Tensor, scale: FlameScale) -> LossTerm:
    """Error of the FLAME vector read from the predicted clean structure, each entry in units of its own spread."""
    clean = predicted_structure(velocity.float(), shown)
    error = (model.predict_flame(clean).float() - flame_BTSF) * inverse_spread(scale)
    return LossTerm(error.square().mean(dim=(-2, -1)), torch.ones_like(shown.sigma.structure), shown.sigma.structure)


def clip_weighted(term: LossTerm, weight_B: Tensor) -> LossTerm:
    """The same errors, every clip counting by its quality weight."""
    return term._replace(counts_BT=term.counts_BT * weight_B[:, None])


def inverse_spread(scale: FlameScale) -> Tensor:
    """1 / standard deviation `[F]`; 0 for entries that never change and so have nothing to learn."""
    return torch.where(scale.std > 1e-6, 1.0 / scale.std.clamp_min(1e-6), 0.0)


def total_loss(terms: Mapping[str, LossTerm], weights: Mapping[str, float]) -> Tensor:
    """The sum of weight x error over learnt frames, divided by the number of all frames."""
    used = {name: weight for name, weight in weights.items() if weight > 0}
    parts = [weight * (terms[name].error_BT * terms[name].counts_BT).mean() for name, weight in used.items()]
    return torch.stack(parts).sum()


# -------------------- the list


def _has(model: DualForceConfig, loss: LossSpec) -> bool:
    """Whether a model has the stream that a loss is of."""
    return {"video": model.has_video, "structure": model.has_structure, None: True}[loss.of]


def check_losses(settings: ObjectiveConfig, model: DualForceConfig, flame: FlameScale | None) -> None:
    """Refuse weights of losses that there are not, or that the model or the dataset cannot give.

    Args:
        flame: as :class:`Objective` takes it.

    Raises:
        UserError: with the setting that leaves the loss out.
    """
    for name in settings.extra:
        if name not in LOSSES or LOSSES[name].weight is not None:
            own = [one for one, loss in LOSSES.items() if loss.weight is None]
            known = f"those that do: {own}" if own else "no loss of one's own is registered (docs/how-to/loss.md)"
            raise UserError(f"objective.extra: no loss {name!r} takes its weight there; {known}")
    for name, loss in LOSSES.items():
        if weight_of(name, settings, 0) <= 0:
            continue
        if not _has(model, loss):
            setting = f"{name}.weight" if name in ("flame", "sync") else f"{name}_weight"
            told = f"has no {loss.of} (streams={model.streams})"
            raise UserError(f"objective.{setting} is above 0, but the model {told}; set objective.{setting}=0")
        if (reason := loss.lacking(model, flame)) is not None:
            raise UserError(reason)


def weight_of(name: str, settings: ObjectiveConfig, step: int) -> float:
    """The weight of a loss at a step."""
    weight = LOSSES[name].weight
    return settings.extra.get(name, 0.0) if weight is None else weight(settings, step)


def _flame_weight(settings: ObjectiveConfig, step: int) -> float:
    flame = settings.flame
    if flame.weight == 0:
        return 0.0
    return decayed_weight(step, start=flame.weight, end=flame.weight_end, over=flame.decay_steps, bends=flame.bends)


def _flame_of(answer: Answer) -> LossTerm:
    if answer.batch.flame is None:
        raise UserError(f"clip {answer.batch.keys[0]} holds no FLAME vector; set objective.flame.weight=0")
    assert answer.flame is not None
    return flame_term(answer.model, answer.velocity.structure, answer.shown, answer.batch.flame, answer.flame)


def _flame_lacking(model: DualForceConfig, flame: FlameScale | None) -> str | None:
    if flame is not None:
        return None
    reason = "the model has flame_dim=0" if not model.flame_dim else "the dataset holds no FLAME vectors"
    return f"objective.flame.weight is above 0, but {reason}; set objective.flame.weight=0"


def _sync_of(answer: Answer) -> LossTerm:
    assert answer.judge is not None
    return answer.judge.term(predicted_video(answer.velocity.video.float(), answer.shown), answer.batch, answer.shown)


LOSSES: dict[str, LossSpec] = {
    "video": LossSpec(
        "squared error of the video's velocity, mean over the cells of a frame",
        lambda answer: answer.flow["video"],
        lambda settings, step: settings.video_weight,
        of="video",
        always=True,
    ),
    "mouth": LossSpec(
        "the part of `video` inside the mouth box",
        lambda answer: answer.flow["mouth"],
        lambda settings, step: settings.video_weight * settings.mouth_weight,
        of="video",
        always=True,
    ),
    "structure": LossSpec(
        "squared error of the structure's velocity, mean over slots and entries",
        lambda answer: answer.flow["structure"],
        lambda settings, step: settings.structure_weight,
        of="structure",
        always=True,
    ),
    "flame": LossSpec(
        "squared error of the FLAME vector read from the predicted clean structure, in units of each entry's spread",
        _flame_of,
        _flame_weight,
        of="structure",
        lacking=_flame_lacking,
    ),
    "sync": LossSpec(
        "-log probability that a frozen expert gives to the audio in sync with the predicted clean mouth, among shifts",
        _sync_of,
        lambda settings, step: settings.sync.weight,
        of="video",
    ),
}
"""Every loss by its name in configs and logs, in the order in which they are logged."""
