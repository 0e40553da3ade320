"""Worker processes that do one thing at a time on one thread of arithmetic, and never outlive their parent."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import parent_process
from multiprocessing.context import SpawnContext, SpawnProcess

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


class _DeafProcess(SpawnProcess):
    """A process that is deaf to Ctrl-C from its first moment, long before :func:`be_a_worker` runs in it."""

    def start(self) -> None:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # the new process inherits it
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _DeafContext(SpawnContext):
    Process = _DeafProcess


@contextlib.contextmanager
def worker_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes (:func:`be_a_worker`); when the work is broken off, they are ended in the middle of theirs.

    So a second Ctrl-C finds nothing left to wait for. What workers write is whole or absent.
    """
    with ProcessPoolExecutor(workers, mp_context=_DeafContext(), initializer=be_a_worker) as pool:
        try:
            yield pool
        except BaseException:
            running = list((pool._processes or {}).values())
            pool.shutdown(wait=False, cancel_futures=True)
            for process in running:
                process.terminate()
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
