"""The next item is made while this one is used: in order, one at a time, errors at their place."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from df_infer.one_ahead import one_ahead
from df_models.machine import usable_cores

TASKS = Path("/proc/self/task")


def test_the_next_item_is_made_while_this_one_is_used_and_no_further() -> None:
    begun = [threading.Event() for _ in range(4)]
    makers = set()

    def items() -> Iterator[int]:
        for index in range(4):
            begun[index].set()
            makers.add(threading.get_ident())
            yield index

    torch.set_num_threads(1)
    seen = []
    for index in one_ahead(items()):
        seen.append(index)
        if index < 3:
            assert begun[index + 1].wait(10), "the next is made meanwhile"
        assert not any(each.is_set() for each in begun[index + 2 :]), "and none beyond it"
    assert seen == [0, 1, 2, 3]
    assert len(makers) == 1 and makers != {threading.get_ident()}, "one thread makes all"


@pytest.mark.skipif(not TASKS.is_dir() or usable_cores() < 2, reason="counts threads as Linux tells them")
def test_the_thread_computes_in_as_many_threads_as_the_caller() -> None:
    """In a process of its own: the tests' has one thread by their environment."""
    code = (
        "import os, torch\nfrom df_infer.one_ahead import one_ahead\n"
        "x = torch.randn(1024, 1024)\ntorch.set_num_threads(1)\n"
        "def items():\n before = len(os.listdir('/proc/self/task'))\n torch.mm(x, x)\n"
        " yield len(os.listdir('/proc/self/task')) - before\nprint(list(one_ahead(items())))"
    )
    alone = {name: value for name, value in os.environ.items() if not name.endswith(("_NUM_THREADS", "_THREAD_LIMIT"))}
    found = subprocess.run([sys.executable, "-c", code], env=alone, capture_output=True, text=True, check=True)
    assert found.stdout == "[0]\n"


def test_what_fails_is_raised_where_its_item_would_come() -> None:
    def items() -> Iterator[int]:
        yield 0
        raise ValueError("the second")

    made = one_ahead(items())
    assert next(made) == 0
    with pytest.raises(ValueError, match="the second"):
        next(made)
    assert list(one_ahead(iter(()))) == []


def test_whoever_stops_early_leaves_no_thread() -> None:
    made = one_ahead(iter(range(100)))
    assert next(made) == 0
    made.close()
    assert not any(thread.name.startswith("one-ahead") for thread in threading.enumerate())
