"""Precision `auto`: one rule with a reason, on every kind of device; the words for a machine."""

from __future__ import annotations

import resource
from types import SimpleNamespace

import pytest
import torch

from df_models import machine
from df_models.errors import UserError
from df_models.machine import (
    choose_precision,
    cpu_name,
    data_sheet_rate,
    describe_device,
    matmul_rate,
    peak_memory,
    usable_cores,
)


def pretend_cpu(monkeypatch: pytest.MonkeyPatch, *, amx: bool, avx512_bf16: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)


def pretend_gpu(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], *, any_bf16: bool = True) -> None:
    properties = SimpleNamespace(name="Pretended GPU", total_memory=80 << 30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: any_bf16)


@pytest.mark.parametrize(
    ("amx", "avx512_bf16", "dtype", "reason"),
    [
        (True, True, torch.bfloat16, "AMX"),
        (True, False, torch.bfloat16, "AMX"),
        (False, True, torch.bfloat16, "AVX-512 BF16"),
        (False, False, torch.float32, "neither AMX nor AVX-512 BF16"),
    ],
)
def test_auto_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch, amx: bool, avx512_bf16: bool, dtype: torch.dtype, reason: str
) -> None:
    pretend_cpu(monkeypatch, amx=amx, avx512_bf16=avx512_bf16)
    chosen = choose_precision("auto", "cpu")
    assert chosen.dtype == dtype and reason in chosen.reason
    assert str(chosen) == f"{chosen.name}: {chosen.reason}"


@pytest.mark.parametrize(
    ("capability", "dtype"), [((7, 0), torch.float32), ((7, 5), torch.float32), ((8, 0), torch.bfloat16)]
)
def test_auto_on_a_gpu_does_not_count_emulation(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.version, "hip", None)
    pretend_gpu(monkeypatch, capability)
    chosen = choose_precision("auto", "cuda")
    assert chosen.dtype == dtype and f"compute capability {capability[0]}.{capability[1]}" in chosen.reason


def test_auto_elsewhere_is_float32() -> None:
    chosen = choose_precision("auto", "mps")
    assert chosen.dtype == torch.float32 and "not on mps" in chosen.reason


def test_what_is_asked_for_is_given_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_cpu(monkeypatch, amx=False, avx512_bf16=False)
    assert choose_precision("bfloat16", "cpu").dtype == torch.bfloat16
    pretend_cpu(monkeypatch, amx=True, avx512_bf16=True)
    assert choose_precision("float32", "cpu").dtype == torch.float32
    with pytest.raises(UserError, match=r"unknown precision 'bfloat61'.*bfloat16"):
        choose_precision("bfloat61", "cpu")
    pretend_gpu(monkeypatch, (5, 0), any_bf16=False)
    with pytest.raises(UserError, match="Pretended GPU has none"):
        choose_precision("bfloat16", "cuda")


def test_a_machine_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: torch.get_num_threads() + 3)
    pretend_cpu(monkeypatch, amx=False, avx512_bf16=False)
    told = describe_device("cpu")
    assert told.startswith(cpu_name()) and "no AMX" in told
    assert f"{torch.get_num_threads() + 3} cores" in told and "of torch" in told
    pretend_cpu(monkeypatch, amx=True, avx512_bf16=True)
    assert describe_device("cpu").endswith(", AMX")
    pretend_gpu(monkeypatch, (9, 0))
    assert describe_device("cuda") == "Pretended GPU, 80 GiB"


def test_cores_are_those_that_this_process_may_use() -> None:
    assert 1 <= usable_cores() <= 4096


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A100-PCIE-40GB", 312e12),
        ("NVIDIA H100 80GB HBM3", 989.5e12),
        ("NVIDIA H100 PCIe", 756.5e12),
        ("NVIDIA H100 NVL", 835.5e12),
        ("NVIDIA H200", 989.5e12),
        ("NVIDIA H200 NVL", 835.5e12),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("NVIDIA GH200 480GB", None),
        ("NVIDIA H20", None),
        ("NVIDIA GeForce RTX 4090", None),
    ],
)
def test_the_peak_of_a_data_sheet_is_that_of_the_very_card(name: str, rate: float | None) -> None:
    assert data_sheet_rate(name) == rate


def test_the_rate_is_the_median_of_products_by_the_clock_given() -> None:
    ticks = iter(range(1000))
    assert matmul_rate("cpu", torch.float32, clock=lambda: 0.5 * next(ticks)) == 2 * 1024**3 / 0.5
    assert next(ticks) == 2 * 15
    assert matmul_rate("cpu", torch.float32, clock=lambda: 0.5 * next(ticks), seconds=0.1) == 2 * 1024**3 / 0.5
    assert next(ticks) == 2 * 15 + 1 + 2 * 3, "three at least"


def test_the_peak_of_memory_is_the_system_s() -> None:
    held = torch.ones(64 << 18)
    assert peak_memory("cpu") == pytest.approx(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, rel=0.1)
    assert peak_memory("cpu") > held.nbytes
