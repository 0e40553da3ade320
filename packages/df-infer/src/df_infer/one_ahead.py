"""The next item is made in a thread of its own while this one is used: denoising beside decoding."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")
_END = object()


def one_ahead(items: Iterator[T]) -> Generator[T, None, None]:
    """Yield the items, in their order; each is made while the one before is used.

    They are all made in one thread, with as many threads for each operation as the caller's. What fails while an item
    is made is raised where that item would come. Whoever stops early waits for the item that is being made. What torch
    keeps for each thread (autocast, inference mode, a stream) is that of a new thread, not the caller's.
    """
    threads = torch.get_num_threads()  # a new thread would begin with as many as there are cores
    with ThreadPoolExecutor(1, "one-ahead", torch.set_num_threads, (threads,)) as maker:
        following = maker.submit(next, items, _END)
        while (item := following.result()) is not _END:
            following = maker.submit(next, items, _END)
            yield item  # type: ignore[misc]
