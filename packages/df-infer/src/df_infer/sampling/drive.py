"""Structure that is given at generation: a motion track, all of it or named fields; the rest is generated.

What is given is shown clean, as in training (`df_train.given`). Structure given whole is at noise level 0 in every call
of the model, so that it costs no call of its own, and enters the cache as it is. Named fields are clean entries of
frames that stay noisy, and the model is told which (`structure_known` of its configuration).

Shape legend: B batch, T latent frames, C latent frames of a chunk, S = 4 slots, V structure entries.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from df_infer.run_dir import Trained
from df_infer.sampling.audio_feed import AudioFeed
from df_models import DualForce, DualForceConfig
from df_models.errors import UserError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Drive:
    """A motion track for a generation.

    Attributes:
        structure: ``[B, T, 4, V]`` in the units of the model's structure layout, with as many latent frames as the
            audio, or an iterable of such pieces as they arrive.
        fields: names of the layout's fields to take from it; none: all of it.
    """

    structure: Tensor | Iterable[Tensor]
    fields: tuple[str, ...] = ()


class GivenChunk(NamedTuple):
    """The given structure of a chunk, normalised ``[B, C, 4, V]``; ``known_V`` bool, its entries, None: all."""

    structure: Tensor
    known_V: Tensor | None

    def held(self, structure_BCSV: Tensor) -> Tensor:
        """Return a structure with what is given put back into it."""
        return self.structure if self.known_V is None else torch.where(self.known_V, self.structure, structure_BCSV)


class GivenStructure:
    """Hands a rollout what is given, chunk by chunk.

    Raises:
        UserError: the drive is not what the model learnt to be given, or does not fit it.
    """

    def __init__(self, model: DualForce, drive: Drive, batch: int, device: torch.device) -> None:
        check_drive(model.config, drive.fields)
        self._model, self._batch, self._device = model, batch, device
        self._feed = AudioFeed(drive.structure, lookahead=0, what="the given structure")
        self._frames = 0
        self._known_V = None if not drive.fields else known_entries(model.config, drive.fields).to(device)

    def take(self, count: int) -> GivenChunk:
        """Return the next ``count`` latent frames.

        Raises:
            UserError: there are fewer, or they are of another batch or width.
        """
        taken = self._feed.take(count)
        have = 0 if taken is None else taken[1]
        self._frames += have
        if taken is None or have < count:
            raise UserError(
                f"the given structure ends after {self._frames} latent frames, and the audio goes on; give a longer "
                "track, or generate fewer frames"
            )
        return self.chunk(taken[0])

    def chunk(self, raw_BCSV: Tensor) -> GivenChunk:
        """Return what is given of a chunk, ``[B, C, 4, V]`` in the layout's units.

        Raises:
            UserError: it is of another batch or width.
        """
        wanted = (self._batch, self._model.config.structure_dim)
        if (raw_BCSV.shape[0], raw_BCSV.shape[-1]) != wanted:
            raise UserError(
                f"the given structure is {list(raw_BCSV.shape)}, but {wanted[0]} samples of {wanted[1]} entries are "
                "generated"
            )
        return GivenChunk(self._model.normalize_structure(raw_BCSV.to(self._device).float()), self._known_V)


def check_lengths(drive: Drive, audio: Tensor | Iterable[Tensor]) -> None:
    """Refuse a whole track of another length than the whole audio; what arrives in pieces is seen as it ends.

    Raises:
        UserError: naming both.
    """
    if not isinstance(drive.structure, Tensor) or not isinstance(audio, Tensor):
        return
    if drive.structure.shape[1] != audio.shape[1]:
        raise UserError(
            f"the given structure has {drive.structure.shape[1]} latent frames, the audio {audio.shape[1]}; cut them "
            "to the same length"
        )


def check_saw_clean(trained: Trained) -> None:
    """Refuse to give all of its structure to a model that never saw it clean beside noisy video.

    That is a distilled student alone: in any other training each stream has a level of its own, and the structure's
    reach from 0 to `sigma_structure_max` at least, whatever `objective.structure_tail` is.

    Raises:
        UserError: with what to do instead.
    """
    if trained.distilled:
        raise UserError(
            "all of the structure is given (a motion, or rollout.structure_from), but the model is a distilled student "
            "(task=distill), which never saw clean structure beside noisy video; generate without it, or with the "
            "student's teacher"
        )


def check_drive(model: DualForceConfig, fields: tuple[str, ...] = (), *, warn: bool = True) -> None:
    """Refuse fields that a model cannot be given, and ``warn`` of structure that its training never gave whole.

    Raises:
        UserError: with what the model learnt to be given, or that it has no structure.
    """
    if not model.has_structure:
        raise UserError("a motion was given, but the model has no structure (streams=video); leave it out")
    if not fields:
        if warn and model.structure_given == "never":
            _log.warning(
                "the model was never given all of its structure in training (objective.give_structure=0), so it may "
                "follow the given motion badly"
            )
        return
    if model.structure_given == "always":
        raise UserError("the model was always given all of its structure, so it cannot make the rest; give all fields")
    known_entries(model, fields)
    missing = _not_learnt(model, fields)
    if missing:
        groups = ", ".join("+".join(group) for group in model.given_fields) or "none"
        raise UserError(
            f"the model did not learn to be given {', '.join(missing)} alone; the fields that it learnt to be given "
            f"are: {groups} (objective.give_fields of its training)"
        )


def learnt_fields(model: DualForceConfig, fields: tuple[str, ...]) -> bool:
    """Return whether a model learnt to be given some fields: they are made of groups that its training gave."""
    return model.has_structure and not _not_learnt(model, fields)


def _not_learnt(model: DualForceConfig, fields: tuple[str, ...]) -> list[str]:
    learnt = [group for group in model.given_fields if set(group) <= set(fields)]
    return [name for name in fields if not any(name in group for group in learnt)]


def check_makes_structure(model: DualForceConfig) -> None:
    """Refuse to generate without a drive from a model whose training always gave the structure.

    Raises:
        UserError: with what to give.
    """
    if model.structure_given == "always":
        raise UserError(
            "the model takes structure as a condition and makes none (objective.give_structure=1); give it a motion "
            "(--drive motion.npz), or name a run whose model makes it (rollout.structure_from, --structure-from RUN)"
        )


def known_entries(model: DualForceConfig, fields: tuple[str, ...]) -> Tensor:
    """Return bool ``[V]``, the entries of some fields.

    Raises:
        UserError: the model's structure has no such field, or it does not know what its structure is made of.
    """
    if model.structure_layout is None:
        raise UserError("the model does not say what its structure is made of, so that no field of it can be named")
    return torch.tensor(model.structure_layout.entries(fields))
