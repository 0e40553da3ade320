"""What this machine computes with: the processor's name and cores, the precision that suits it, its rate and memory."""

from __future__ import annotations

import math
import os
import platform
import re
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from df_models.errors import UserError, nearest
from df_models.float8 import check_float8

PrecisionName = Literal["auto", "float32", "bfloat16"]
DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_FIRST_WITH_BFLOAT16 = (8, 0)
"""Compute capability of the A100, the first NVIDIA GPU whose matrix units take bfloat16 (CUDA C++ Programming Guide,
"Compute Capabilities"). `torch.cuda.is_bf16_supported` also says yes to older ones, which emulate it slowly."""


@dataclass(frozen=True)
class Precision:
    """What a model computes in.

    Attributes:
        reason: why, as the end of a sentence: "this CPU has matrix instructions for it (AMX)".
        float8: the products of its layers are in float8 (:mod:`df_models.float8`), all else in ``dtype``.
    """

    dtype: torch.dtype
    reason: str
    float8: bool = False

    @property
    def name(self) -> str:
        """``float32``, ``bfloat16`` or ``float8``."""
        return "float8" if self.float8 else str(self.dtype).removeprefix("torch.")

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


def choose_precision(setting: str, device: torch.device | str) -> Precision:
    """Return what to compute in on a device; ``auto`` is bfloat16 where the device has matrix instructions for it.

    This is the one rule of all packages, for training, encoding and generating alike.

    Args:
        setting: ``auto``, ``float32``, ``bfloat16``, or for generating ``float8``.

    Raises:
        UserError: another setting, bfloat16 on a GPU that cannot compute in it at all, or float8 where it cannot be.
    """
    device = torch.device(device)
    native, reason = _bfloat16_instructions(device)
    if setting == "auto":
        return Precision(torch.bfloat16 if native else torch.float32, reason)
    if setting == "float8":
        check_float8(device, "float8", "use bfloat16", "df-infer[float8]")
        return Precision(torch.bfloat16, "as asked for", float8=True)
    if setting not in DTYPES:
        known = "auto", *DTYPES, "float8"
        raise UserError(f"unknown precision {setting!r}{nearest(setting, known)}; use {', '.join(known)}")
    if setting == "bfloat16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise UserError(f"bfloat16 was asked for, but {gpu_name(device)} has none; use float32 or auto")
    return Precision(DTYPES[setting], "as asked for")


def _bfloat16_instructions(device: torch.device) -> tuple[bool, str]:
    if device.type == "cuda":
        if torch.version.hip is not None:
            return torch.cuda.is_bf16_supported(), f"{gpu_name(device)} is an AMD GPU, and ROCm says so"
        capability = torch.cuda.get_device_capability(device)
        return capability >= _FIRST_WITH_BFLOAT16, (
            f"{gpu_name(device)} has compute capability {capability[0]}.{capability[1]}; bfloat16 matrix units begin "
            f"with {_FIRST_WITH_BFLOAT16[0]}.{_FIRST_WITH_BFLOAT16[1]}"
        )
    if device.type != "cpu":
        return False, f"bfloat16 is chosen on CPUs and CUDA devices only, not on {device.type}"
    found = cpu_bfloat16()
    if found is None:
        return False, "this CPU has no bfloat16 instructions (neither AMX nor AVX-512 BF16)"
    return True, f"this CPU has bfloat16 instructions ({found})"


def cpu_bfloat16() -> str | None:
    """Return what this CPU multiplies bfloat16 matrices with, ``AMX`` or ``AVX-512 BF16``; None if it cannot.

    torch asks the processor (CPUID) and has no public name for the answer.
    """
    if torch.cpu._is_amx_tile_supported():
        return "AMX"
    return "AVX-512 BF16" if torch.cpu._is_avx512_bf16_supported() else None


def describe_device(device: torch.device | str) -> str:
    """Return the processor in a few words: ``AMD EPYC, 2 cores, AVX2, no AMX`` or a GPU's name and memory."""
    device = torch.device(device)
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
        return f"{gpu_name(device)}, {memory / 2**30:.0f} GiB"
    if device.type != "cpu":
        return device.type
    cores, threads = usable_cores(), torch.get_num_threads()
    told = [cpu_name(), f"{cores} core{'s' * (cores > 1)}"]
    if threads != cores:
        told.append(f"{threads} thread{'s' * (threads > 1)} of torch")
    told.append(torch.backends.cpu.get_cpu_capability())
    return ", ".join([*told, cpu_bfloat16() or "no AMX"])


def gpu_name(device: torch.device | str) -> str:
    """Return a CUDA device's name."""
    return torch.cuda.get_device_properties(device).name


def cpu_name() -> str:
    """Return the processor's name as the system gives it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.lower().startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """Return how many cores this process may run on, which is fewer than the machine has under ``taskset`` or Slurm."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def matmul_rate(
    device: torch.device | str,
    dtype: torch.dtype,
    *,
    clock: Callable[[], float] = time.perf_counter,
    seconds: float = math.inf,
) -> float:
    """Return a device's own rate in FLOP/s: the median of up to 15 square matrix products of random numbers.

    Args:
        clock: in seconds; CUDA is waited for before it is read.
        seconds: begin no further product after so many, once three are timed.
    """
    device = torch.device(device)
    size = 8192 if device.type == "cuda" else 1024  # large enough to fill the device, and to forget the launch
    generator = torch.Generator(device).manual_seed(0)
    a, b = (torch.randn(size, size, device=device, generator=generator).to(dtype) for _ in range(2))

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return clock()

    for _ in range(3):
        torch.mm(a, b)
    taken: list[float] = []
    while len(taken) < 15 and (len(taken) < 3 or sum(taken) < seconds):
        began = now()
        torch.mm(a, b)
        taken.append(now() - began)
    return 2 * size**3 / statistics.median(taken)


_DENSE_BFLOAT16 = (
    (r"\bA100\b", 312e12),
    (r"\bH100 PCIe\b", 756.5e12),
    (r"\bH[12]00 NVL\b", 835.5e12),
    (r"\bH[12]00\b", 989.5e12),
)
"""FLOP/s by NVIDIA's data sheets of the A100 (2021), H100 (2023) and H200 (2024) Tensor Core GPUs. The last two give
rates with sparsity (1513, 1671 and 1979 TFLOP/s), which are twice those of dense matrices."""


def data_sheet_rate(name: str) -> float | None:
    """Return the dense bfloat16 peak of a GPU by its name, in FLOP/s; None if it is not known, or a MIG slice."""
    if "MIG" in name:
        return None
    return next((rate for pattern, rate in _DENSE_BFLOAT16 if re.search(pattern, name)), None)


def peak_memory(device: torch.device | str) -> int:
    """Return the most bytes held so far: by torch on a CUDA device, or else resident in this process's memory."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.is_file() else ():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
