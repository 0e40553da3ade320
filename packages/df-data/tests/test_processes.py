"""Workers compute on one thread."""

from __future__ import annotations

import multiprocessing

import numpy as np
import torch
from threadpoolctl import threadpool_info

from df_data.processes import be_a_worker, one_thread


def threads() -> tuple[int, set[int]]:
    """Threads of torch, and of every BLAS that is loaded."""
    np.dot(np.ones((64, 64)), np.ones((64, 64)))
    return torch.get_num_threads(), {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def _in_a_worker(pipe: multiprocessing.connection.Connection) -> None:  # type: ignore[name-defined]
    be_a_worker()
    pipe.send(threads())


def test_one_thread_until_they_are_given_back() -> None:
    before = threads()
    give_back = one_thread()
    assert threads() == (1, {1})
    give_back()
    assert threads() == before


def test_a_worker_has_one_thread() -> None:
    ours, theirs = multiprocessing.Pipe()
    worker = multiprocessing.get_context("spawn").Process(target=_in_a_worker, args=(theirs,), daemon=True)
    worker.start()
    assert ours.poll(60) and ours.recv() == (1, {1})
    worker.join(10)
