"""The model's own recorded errors, for histories that look like what it will meet when it generates.

Shape legend: N errors kept, B clips, T latent frames.
"""

from __future__ import annotations

import torch
from torch import Tensor

from df_models.errors import UserError
from df_models.flow.noise import id_list, keyed_generator


class ErrorBank:
    """A ring of the latest errors of one stream: predicted clean minus clean, of single latent frames.

    Its state is exact: :meth:`state_dict` and :meth:`load_state_dict` carry it over a resume.
    """

    def __init__(self, frame_shape: tuple[int, ...], capacity: int = 256) -> None:
        if capacity < 1:
            raise UserError(f"an error bank needs room for at least 1 error, not {capacity}")
        self.errors = torch.zeros(capacity, *frame_shape)
        self.count = 0

    def __len__(self) -> int:
        return min(self.count, len(self.errors))

    def add(self, predicted_BT: Tensor, clean_BT: Tensor) -> None:
        """Record the errors ``[B, T, *frame_shape]`` of predictions, the newest in place of the oldest.

        One that is not finite is left out: it would come back in every history that it is drawn for.
        """
        errors = (predicted_BT - clean_BT).detach().float().cpu().flatten(0, 1)[-len(self.errors) :]
        errors = errors[errors.flatten(1).isfinite().all(dim=1)]
        places = (self.count + torch.arange(len(errors))) % len(self.errors)
        self.errors[places] = errors
        self.count += len(errors)

    def corrupt(
        self, clean_BT: Tensor, carries_B: Tensor, sample_ids: Tensor | list[int], *, seed: int, step: int, stream: str
    ) -> Tensor:
        """Return clips ``[B, T, *frame_shape]`` with a random recorded error added to each frame where ``carries``.

        While nothing is recorded the clips come back as they are.
        """
        if not len(self):
            return clean_BT
        frames = clean_BT.shape[1]
        picks = torch.stack(
            [
                torch.randint(len(self), (frames,), generator=keyed_generator(seed, step, sample, f"error:{stream}"))
                for sample in id_list(sample_ids)
            ]
        )
        errors = self.errors[picks].to(clean_BT) * carries_B.to(clean_BT).view(-1, *(1,) * (clean_BT.ndim - 1))
        return clean_BT + errors

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state as tensors."""
        return {"errors": self.errors, "count": torch.tensor(self.count)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over a state of the same size."""
        if state["errors"].shape != self.errors.shape:
            raise UserError(f"the error bank is {list(self.errors.shape)}, its state {list(state['errors'].shape)}")
        self.errors.copy_(state["errors"])
        self.count = int(state["count"])
