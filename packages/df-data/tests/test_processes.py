"""Workers compute on one thread."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info

from df_data.common.processes import be_a_worker, one_thread


def blas(found: list[dict[str, Any]]) -> set[int]:
    """Threads of every BLAS that is loaded."""
    return {pool["num_threads"] for pool in found if pool["user_api"] == "blas"}


def test_one_thread_until_they_are_given_back() -> None:
    np.dot(np.ones((64, 64)), np.ones((64, 64)))
    before = torch.get_num_threads(), blas(threadpool_info())
    give_back = one_thread()
    assert (torch.get_num_threads(), blas(threadpool_info())) == (1, {1})
    give_back()
    assert (torch.get_num_threads(), blas(threadpool_info())) == before


def test_a_worker_has_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "2")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=be_a_worker) as pool:
        assert pool.submit(np.dot, np.ones((64, 64)), np.ones((64, 64))).result(60).shape == (64, 64)
        assert pool.submit(torch.get_num_threads).result(60) == 1
        assert blas(pool.submit(threadpool_info).result(60)) == {1}
