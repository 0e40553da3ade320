"""What all processes say of a step, known to all of them one step later, so that no step waits for it."""

from __future__ import annotations

from datetime import timedelta

import torch
import torch.distributed as dist

from df_train.processes.distributed import World

_PATIENCE = timedelta(days=1)
"""One process may generate samples for long while the others wait; one that dies is noticed at once."""


class Agreement:
    """The largest of one small number from each process, by a gloo group of its own: in the background, on the host.

    Every process must make one, and call it equally often.
    """

    def __init__(self, world: World) -> None:
        group = dist.new_group(backend="gloo", timeout=_PATIENCE) if world.size > 1 else None
        assert group is None or isinstance(group, dist.ProcessGroup)  # every process is in it
        self._group = group
        self._value, self._on_its_way = torch.zeros((), dtype=torch.int64), None

    def __call__(self, own: int) -> int:
        """Say `own`; return the largest of what was said one call before, 0 at the first.

        A process that is alone has its own word at once.
        """
        if self._group is None:
            return own
        agreed = self._arrived()
        self._value = torch.tensor(own)
        self._on_its_way = dist.all_reduce(self._value, dist.ReduceOp.MAX, self._group, async_op=True)
        return agreed

    def _arrived(self) -> int:
        if self._on_its_way is None:
            return 0
        self._on_its_way.wait()
        return int(self._value)
