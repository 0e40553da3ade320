"""Steps whose gradient is not finite: skipped and counted, and the end of a run if there are too many in a row.

A skipped step leaves its number behind and nothing else: weights, optimizer, average and the sums of the losses stay
what they were. On a CPU every step's gradient is looked at. A GPU is not waited for: the norm of the gradient, which is
there, decides on the device whether the update is made (`take`), and the counts are read where figures are logged and
before anything is saved. The norm is that of all processes, so all of them skip the same steps.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from df_train.ema import ParameterAverage


class SkipCounts(NamedTuple):
    """Skipped steps: of the whole run, in a row up to now, in a row at most since the last look, and the last one of
    that longest row."""

    total: int = 0
    row: int = 0
    longest: int = 0
    last: int = 0


class Skips:
    """Counts skipped steps where the parameters are, and remembers whose clips were in them.

    Attributes:
        waits: whether every step is looked at: where parameters lie in the host's memory (on a CPU, and with
            `sharding.offload`), since the norm is at hand there.
    """

    def __init__(self, device: torch.device) -> None:
        self.waits = device.type == "cpu"
        self._counts_4 = torch.tensor(SkipCounts(), device=device)
        self._keys: dict[int, list[str]] = {}

    def note(self, norm: Tensor, step: int, keys: list[str]) -> Tensor:
        """Count a step; return 1.0 if it is to be skipped, else 0.0, on the device.

        Args:
            norm: of the gradient, the same in all processes, 0-dimensional.
            step: number of the step, from 1.
            keys: of its clips in this process.
        """
        skipped = ~norm.isfinite()
        total, row, longest, last = self._counts_4.unbind()
        row = (row + 1) * skipped
        last = torch.where(skipped & (row >= longest), step, last)
        self._counts_4 = torch.stack([total + skipped, row, torch.maximum(longest, row), last])
        self._keys[step] = keys
        return skipped.float()

    def take(self, skip: Tensor, optimizer: torch.optim.Optimizer, average: ParameterAverage, decay: float) -> None:
        """Step the optimizer and the average, unless `skip`, what `note` returned, is 1."""
        if not self.waits:
            assert optimizer.defaults["fused"], "others do not know found_inf"
            optimizer.found_inf = skip  # type: ignore[attr-defined]
            optimizer.step()
            average.update(decay, unless=skip)
        elif not skip:
            optimizer.step()
            average.update(decay)

    def look(self) -> SkipCounts:
        """The counts; a GPU is waited for."""
        counts = SkipCounts(*self._counts_4.tolist())
        self._counts_4[2] = counts.row
        self._keys = {step: keys for step, keys in self._keys.items() if step == counts.last}
        return counts

    def keys_of(self, step: int) -> list[str]:
        """This process's clips of the step that `look` gave as `last`; none if that was before a resume."""
        return self._keys.get(step, [])

    def state_dict(self) -> dict[str, int]:
        """What a checkpoint keeps; the same in all processes."""
        total, row, _, last = self.look()
        return {"total": total, "row": row, "last": last}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on counting from what `state_dict` gave."""
        counts = SkipCounts(state["total"], state["row"], state["row"], state["last"])
        self._counts_4 = torch.tensor(counts, device=self._counts_4.device)
