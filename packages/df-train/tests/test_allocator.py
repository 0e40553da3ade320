"""Training on a CPU keeps the memory that a step frees."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import torch
from df_train.processes.allocator import keep_freed_memory
from df_train.processes.distributed import open_world

with open_world("cpu"):
    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        kept = [torch.ones(12_000_000) for _ in range(2)]  # 48 MB each
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    print(keep_freed_memory(), min(faults() for _ in range(10)))
"""

HOLES = """
import numpy as np
from df_train.processes.allocator import give_back_memory, keep_freed_memory

def resident() -> int:
    return int(open("/proc/self/statm").read().split()[1]) * 4096

assert keep_freed_memory()
blocks = [np.ones(1_000_000) for _ in range(40)]
pins = [np.ones(20_000)]  # above the blocks: what lies below it is a hole
del blocks
kept = resident()
give_back_memory()
print(kept - resident())
"""
GLIBC = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc" or tuple(map(int, platform.libc_ver()[1].split("."))) < (2, 35),
    reason="other C libraries have no such setting, and older ones map blocks of more than 32 MiB in any case",
)


@GLIBC
@pytest.mark.parametrize(
    "users",
    [{}, {"MALLOC_MMAP_THRESHOLD_": "1000000"}, {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=1000000"}],
)
def test_what_a_step_freed_is_not_asked_of_the_system_again(users: dict[str, str]):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUN"))}
    command = [sys.executable, "-c", FAULTS]
    done = subprocess.run(command, capture_output=True, text=True, env=clean | users, timeout=120)
    assert done.returncode == 0, done.stderr
    kept, faults = done.stdout.split()[-2:]
    assert kept == str(not users), "the user's own setting stands"
    assert (int(faults) < 20) == (not users), "two tensors of 48 MB are 23 000 pages, or 48 large ones"


@GLIBC
def test_what_other_work_left_is_given_back():
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUN"))}
    done = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, env=clean, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 200_000_000, "of 320 MB"
