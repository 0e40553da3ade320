"""Structure that is given clean: whole in a share of the clips, named fields of it in another; the rest is learnt.

Generation can then be told the whole motion (motion transfer), or some of it (control: head pose, eyelids), by the same
rule as everything else that is known: it is shown clean. Structure given whole is sigma 0 in every latent frame. A
field given within a frame that stays noisy has no noise level of its own, so the model is told which entries are known
(`structure_known` of its configuration). What is given is not learnt, and is given in a separate history too. The FLAME
head reads it like any clean structure.

Shape legend: B clips, T latent frames, S = 4 slots, V structure entries, G groups of fields.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from df_models import DualForceConfig
from df_models.errors import UserError
from df_models.flow import keyed_generator
from df_train.config import ObjectiveConfig
from df_train.noising import Shown


class Gifts(NamedTuple):
    """What the clips of a batch are given: bool ``[B]``, all structure; bool ``[B, V]``, single entries."""

    whole_B: Tensor
    known_BV: Tensor


@dataclass(frozen=True)
class GivenStructure:
    """Which clips are given structure, and which entries.

    Attributes:
        whole, fields: shares of the clips that are given all of it, or some groups of fields.
        groups_GV: bool, the entries of each group.
    """

    whole: float
    fields: float
    groups_GV: Tensor

    def draw(self, ids: list[int], *, seed: int, step: int) -> Gifts:
        """Decide for each clip; every choice of at least one group is equally likely."""
        draws = [torch.rand(2, generator=keyed_generator(seed, step, sample, "given")) for sample in ids]
        share_B, choice_B = torch.stack(draws).T
        whole_B = share_B < self.whole
        some_B = ~whole_B & (share_B < self.whole + self.fields)
        choices = 2 ** len(self.groups_GV) - 1
        chosen_B = 1 + (choice_B * choices).long().clamp_max(max(choices - 1, 0))
        picks_BG = (chosen_B[:, None] >> torch.arange(len(self.groups_GV))) & 1
        known_BV = (picks_BG[:, :, None].bool() & self.groups_GV).any(dim=1)
        return Gifts(whole_B, known_BV & some_B[:, None])

    def give(self, shown: Shown, ids: list[int], *, seed: int, step: int) -> Shown:
        """Show a batch again, with what its clips are given."""
        device = shown.clean.structure.device
        gifts = Gifts(*(value.to(device) for value in self.draw(ids, seed=seed, step=step)))
        shown = given_whole(shown, gifts.whole_B)
        return _entries(shown, gifts.known_BV) if self.fields > 0 else shown


def given_structure(objective: ObjectiveConfig, model: DualForceConfig) -> GivenStructure | None:
    """The rule that a configuration asks for; None: nothing is given.

    Raises:
        UserError: a field that the model's structure does not have, all of its fields, or a model that is not told
            which entries are known.
    """
    fields = objective.give_fields
    if objective.give_structure == 0 and fields.share == 0:
        return None
    if not model.has_structure:
        raise UserError(
            "objective gives structure, but the model has none; set give_structure and give_fields.share to 0"
        )
    if fields.share == 0:
        return GivenStructure(objective.give_structure, 0.0, torch.zeros(0, model.structure_dim, dtype=torch.bool))
    if not model.structure_known:
        raise UserError(
            "objective.give_fields: this model is not told which entries of its structure are known; set "
            "model.overrides.structure_known=true"
        )
    groups_GV = torch.stack([_entries_of(model, names) for names in fields.fields])
    if bool(groups_GV.any(dim=0).all()):
        raise UserError("objective.give_fields.fields name the whole structure; objective.give_structure gives that")
    return GivenStructure(objective.give_structure, fields.share, groups_GV)


def _entries_of(model: DualForceConfig, names: tuple[str, ...]) -> Tensor:
    """Bool ``[V]``, the entries of some fields."""
    if model.structure_layout is None:
        raise UserError("objective.give_fields: the dataset does not say what its structure is made of; build it again")
    return torch.tensor(model.structure_layout.entries(names))


def given_whole(shown: Shown, given_B: Tensor) -> Shown:
    """All structure clean where it is given (bool ``[B]``): level 0, not learnt."""
    noisy_B1 = ~given_B[:, None]
    history = shown.history
    if history is not None:
        history = history._replace(
            structure=_where(given_B, shown.clean.structure, history.structure),
            sigma_structure=history.sigma_structure * noisy_B1,
        )
    return replace(
        shown,
        noisy=shown.noisy._replace(structure=_where(given_B, shown.clean.structure, shown.noisy.structure)),
        sigma=shown.sigma._replace(structure=shown.sigma.structure * noisy_B1),
        learnt=shown.learnt._replace(structure=shown.learnt.structure & noisy_B1),
        history=history,
    )


def _where(given_B: Tensor, clean_BTSV: Tensor, noisy_BTSV: Tensor) -> Tensor:
    return torch.where(given_B[:, None, None, None], clean_BTSV, noisy_BTSV)


def _entries(shown: Shown, known_BV: Tensor) -> Shown:
    """Single entries clean in every frame, which keeps its noise level; the model is told which."""
    clean = shown.clean.structure
    known_BTSV = known_BV[:, None, None].expand_as(clean)
    history = shown.history
    if history is not None:
        history = history._replace(structure=torch.where(known_BTSV, clean, history.structure))
    noisy = shown.noisy._replace(structure=torch.where(known_BTSV, clean, shown.noisy.structure))
    return replace(shown, noisy=noisy, history=history, known=known_BTSV)
