"""Natural blinks: the eyelids are given, by a process of their own, to a model that learnt to be given them.

Nothing in speech tells when to blink, so a model that makes its own eyelids blinks rarely. A minute is divided into as
many equal spans as it has blinks; each has one, at a time of its own. So a blink is a function of the seed and the
time, whatever was generated before: it can be undone and made again like any frame.

Shape legend: B batch, T latent frames, C of a chunk, S = 4 slots, V structure entries, P pixel frames.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from df_infer.sampling.drive import GivenChunk, known_entries, learnt_fields
from df_infer.sampling.noise import FrameNoise
from df_models import DualForce, DualForceConfig
from df_models.blinks import BLINKS_PER_MINUTE, REFRACTORY_S, STRETCH, closing_eyelids, eyelid_closure
from df_models.errors import UserError
from df_models.structure import EYELIDS
from df_models.time import FPS, SLOTS


class Blinks:
    """Gives a model its eyelids.

    Args:
        per_minute: below 100, so that a span is longer than the time in which no other blink begins.
        noise: keys the blinks of each sample.
    """

    def __init__(self, model: DualForce, per_minute: float, noise: FrameNoise) -> None:
        closing = closing_eyelids(model.config.structure_layout)
        assert closing is not None, "refused before"
        self._model, self._noise, self._span_s = model, noise, 60 / per_minute
        self._closing_V = torch.from_numpy(closing)
        self._lids_V = known_entries(model.config, (EYELIDS,))

    def added(self, given: GivenChunk | None, frame: int, count: int, device: torch.device) -> GivenChunk:
        """Return what is given of latent frames ``frame ..`` with the eyelids, unless they are given already."""
        if given is not None and (given.known_V is None or bool(given.known_V.cpu()[self._lids_V].all())):
            return given
        raw_BCSV = self.closure(frame, count)[..., None] * self._closing_V
        structure = self._model.normalize_structure(raw_BCSV.to(device))
        lids_V = self._lids_V.to(device)
        if given is None or given.known_V is None:
            return GivenChunk(structure, lids_V)
        return GivenChunk(torch.where(given.known_V, given.structure, structure), given.known_V | lids_V)

    def closure(self, frame: int, count: int) -> Tensor:
        """Return how far the lids are closed, float32 ``[B, C, 4]``."""
        slots = np.arange(SLOTS * frame, SLOTS * (frame + count))
        times_P = np.maximum(slots - (SLOTS - 1), 0) / FPS  # all four slots of latent frame 0 are pixel frame 0
        first, last = (max(0, int((time + side) // self._span_s)) for time, side in zip(times_P[[0, -1]], (-1, 1)))
        lids_BP = np.zeros((self._noise.batch, len(times_P)))
        for span in range(first, last + 1):
            drawn_B2 = torch.special.ndtr(self._noise.draw(span, 1, "blinks", (2,)))[:, 0].double().numpy()
            for lids_P, (when, stretch) in zip(lids_BP, drawn_B2):
                closed_s = (span + 1) * self._span_s - when * (self._span_s - REFRACTORY_S)
                own = eyelid_closure(times_P - closed_s, STRETCH[0] + (STRETCH[1] - STRETCH[0]) * stretch)
                np.maximum(lids_P, own, out=lids_P)
        return torch.from_numpy(lids_BP).float().unflatten(1, (count, SLOTS))


def natural_blinks(model: DualForce, per_minute: float | None, noise: FrameNoise) -> Blinks | None:
    """Return the blinks of a generation: None if it has none.

    Args:
        per_minute: 0: none; None: as people do, where the model can be given its eyelids.

    Raises:
        UserError: blinks are asked of a model that cannot be given them.
    """
    if per_minute == 0:
        return None
    lacks = why_no_blinks(model.config)
    if lacks is None:
        return Blinks(model, per_minute or BLINKS_PER_MINUTE, noise)
    if per_minute is not None:
        raise UserError(f"rollout.blinks={per_minute:g}, but {lacks}; leave it out")
    return None


def why_no_blinks(model: DualForceConfig) -> str | None:
    """Return why a model cannot be given natural blinks; None: it can."""
    layout = model.structure_layout
    if model.has_structure and layout is not None and not layout.has(EYELIDS):
        return f"the model's structure, {layout}, has no eyelids among its fields"
    if not learnt_fields(model, (EYELIDS,)):
        return "the model did not learn to be given its eyelids (objective.give_fields.fields: [[eyelids]] of training)"
    if closing_eyelids(layout) is None:
        return (
            f"what closes the eyelids is not known of the model's structure, {layout}; a motion can give them "
            "(--drive FILE.npz --drive-fields eyelids)"
        )
    return None
