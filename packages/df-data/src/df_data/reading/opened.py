"""The shards that are open at a time: opened when they are first met, forgotten when others take their turn."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Sequence

from df_data.format.manifest import ShardEntry
from df_data.reading.order import SHARDS_MIXED
from df_data.reading.shard import OpenShard, RawSample, open_shard
from df_data.reading.source import Source
from df_models.errors import UserError

SHARDS_OPEN = 2 * SHARDS_MIXED
"""Those that are mixed, and as many that come next: they are opened before their turn."""


class DamagedShard(UserError):
    """A shard that is missing or damaged as a whole, so that none of its samples can be read."""


class OpenShards:
    """The samples of a split by (shard, index), safe to ask from several threads.

    A shard that could not be opened is not tried again: what is skipped does not depend on when it was met.

    Args:
        source: where the shards come from.
        entries: the manifest's shards.
        limit_bytes: of shards held in memory (those of a URL without a cache); the one in use is always held.
    """

    def __init__(self, source: Source, entries: Sequence[ShardEntry], limit_bytes: int) -> None:
        self._source, self._entries, self._limit = source, entries, limit_bytes
        self._open: OrderedDict[int, OpenShard] = OrderedDict()
        self._damaged: dict[int, str] = {}
        self._lock = threading.Lock()
        self._opening = [threading.Lock() for _ in entries]

    def sample(self, shard: int, index: int) -> RawSample:
        """Read a sample.

        Raises:
            DamagedShard: its shard cannot be read.
            UserError: the sample is damaged.
        """
        return self.shard(shard).sample(index)

    def open_ahead(self, shard: int) -> None:
        """Open a shard whose turn comes soon; if it is damaged, that is told when its turn comes."""
        with contextlib.suppress(DamagedShard):
            self.shard(shard)

    def expect(self, shard: int, index: int) -> None:
        """Have a sample fetched from the disk meanwhile, if its shard is open."""
        with self._lock:
            known = self._open.get(shard)
        if known is not None:
            known.expect(index)

    def is_open(self, shard: int) -> bool:
        """Whether a shard is open, or known to be damaged."""
        with self._lock:
            return shard in self._open or shard in self._damaged

    def shard(self, shard: int) -> OpenShard:
        """Return a shard, opening it if it is not open.

        Raises:
            DamagedShard: it cannot be read.
        """
        known = self._known(shard)
        if known is None:
            with self._opening[shard]:  # of several threads that need a shard one fetches it
                known = self._known(shard)
                if known is None:
                    known = self._opened(shard)
        return known

    def _known(self, shard: int) -> OpenShard | None:
        with self._lock:
            if shard in self._damaged:
                raise DamagedShard(self._damaged[shard])
            if shard in self._open:
                self._open.move_to_end(shard)
            return self._open.get(shard)

    def _opened(self, shard: int) -> OpenShard:
        entry = self._entries[shard]
        try:
            opened = open_shard(self._source.open(entry), entry)
        except UserError as error:
            with self._lock:
                self._damaged[shard] = str(error)
            raise DamagedShard(str(error)) from error
        with self._lock:
            self._open[shard] = opened
            while len(self._open) > 1 and (len(self._open) > SHARDS_OPEN or self._held() > self._limit):
                self._open.popitem(last=False)
        return opened

    def _held(self) -> int:
        return sum(opened.data.held for opened in self._open.values())
