"""Worker processes that do one thing at a time on one thread of arithmetic, and never outlive their parent."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process

import torch
from threadpoolctl import threadpool_limits


def one_thread() -> Callable[[], None]:
    """Have torch and numpy's BLAS compute on one thread each in this process; return what gives the threads back.

    There are as many workers as processors: more threads would only wait for each other (BLAS does so in a loop, which
    doubled the time of a build), and the last bits of a sum depend on their number.
    """
    torch_threads, blas = torch.get_num_threads(), threadpool_limits(1, user_api="blas")
    torch.set_num_threads(1)

    def give_back() -> None:
        blas.restore_original_limits()
        torch.set_num_threads(torch_threads)

    return give_back


@contextlib.contextmanager
def worker_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes (:func:`be_a_worker`); what still waits is dropped when the work is broken off."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=be_a_worker) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def be_a_worker() -> None:
    """Initialise a worker of a process pool: one arithmetic thread, deaf to Ctrl-C, ending with its parent.

    A parent that is killed cannot stop its workers, and a worker that waits for work would wait for ever.
    """
    one_thread()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True, name="follow-parent").start()
