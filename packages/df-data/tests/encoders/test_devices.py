"""Devices: what a setting means on a machine, and who gets which."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from device_models import DeviceModels

from df_data.build.build import fingerprint
from df_data.build.config import BuildConfig
from df_data.build.devices import DeviceRota, gpu_share, resolve_devices
from df_data.build.pool import open_pool
from df_data.build.pool.messages import Ready
from df_data.build.pool.processes import LocalHandle, LocalHost
from df_data.sources.config import SourceConfig
from df_models.errors import UserError
from df_models.machine import choose_precision
from df_models.settings import load_config


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(name=str(device)))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0) if "0" in str(device) else (7, 5))


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


def settings(**given: object) -> BuildConfig:
    source = SourceConfig(name="s", folder="videos", pattern="*.mp4", licence="CC0-1.0")
    return BuildConfig(out="out", sources=(source,), **given)  # type: ignore[arg-type]


@pytest.mark.usefixtures("two_gpus")
def test_a_setting_names_the_devices_of_a_machine() -> None:
    assert resolve_devices("auto") == resolve_devices("cuda") == ["cuda:0", "cuda:1"]
    assert resolve_devices("cuda:1") == ["cuda:1"] and resolve_devices("cpu") == ["cpu"]
    assert resolve_devices(("cuda:1", "cpu")) == ["cuda:1", "cpu"]
    with pytest.raises(UserError, match=r"no device 'cuda:2' here: this machine has cuda:0, cuda:1"):
        resolve_devices(("cuda:0", "cuda:2"))


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("workers", [1, 2])
def test_an_absent_device_is_told_before_anything_starts(workers: int) -> None:
    assert resolve_devices("auto") == ["cpu"]
    threads = torch.get_num_threads()
    pool = open_pool(settings(device="cuda:1", workers=workers), make=pytest.fail)
    with pytest.raises(UserError, match=r"no device 'cuda:1' here: this machine has no CUDA device"), pool:
        pytest.fail("work began")
    assert torch.get_num_threads() == threads


def test_workers_share_the_devices_out_and_a_new_one_takes_its_predecessors() -> None:
    rota = DeviceRota(["cuda:0", "cuda:1", "cuda:2"])
    assert [rota.take() for _ in range(7)] == [f"cuda:{i}" for i in (0, 1, 2, 0, 1, 2, 0)]
    rota.give_back("cuda:1")
    assert rota.take() == "cuda:1"
    rota.give_back("cuda:0")
    rota.give_back("cuda:0")
    assert rota.take() == "cuda:0"


@pytest.mark.usefixtures("two_gpus")
def test_each_local_worker_is_told_its_device() -> None:
    host = LocalHost(settings(device="auto", workers=2), make=DeviceModels)  # type: ignore[arg-type]
    handles: list[LocalHandle] = []

    def told(handle: LocalHandle) -> str:
        message = handle.take()
        assert isinstance(message, Ready), message
        return message.records["device"].id

    try:
        handles += [host.start_worker() for _ in range(2)]  # both load at once
        assert [told(handle) for handle in handles] == ["cuda:0", "cuda:1"]
        handles.pop(1).kill()
        handles.append(host.start_worker())
        assert told(handles[-1]) == "cuda:1", "it takes the place of the one that was lost"
    finally:
        for handle in handles:
            handle.kill()


def test_ray_gives_each_worker_a_part_of_a_gpu() -> None:
    assert gpu_share("cpu", 8, 2) == gpu_share("auto", 8, 0) == 0
    assert gpu_share("cuda", 8, 2) == gpu_share("auto", 8, 2) == 0.25
    assert gpu_share("cuda", 3, 2) == 0.5 and gpu_share("cuda", 2, 8) == 1
    for device in ("cuda:1", ("cuda:0", "cuda:1")):
        with pytest.raises(UserError, match=r"Ray chooses.*cuda, cpu or auto"):
            gpu_share(device, 2, 2)
    with pytest.raises(UserError, match="the Ray cluster has no GPU"):
        gpu_share("cuda", 2, 0)


@pytest.mark.usefixtures("two_gpus")
def test_bfloat16_is_native_from_the_a100_on() -> None:
    found = [choose_precision("auto", device).dtype for device in ("cuda:0", "cuda:1")]
    assert found == [torch.bfloat16, torch.float32]


def test_the_setting_is_checked_and_read_from_the_command_line() -> None:
    given = ["out=o", "sources=[{name: s, folder: f, pattern: '*', licence: l}]"]
    assert load_config(BuildConfig, None, [*given, "device=[cuda:0,cuda:1]"]).device == ("cuda:0", "cuda:1")
    for wrong in ("gpu", "cuda:x", "[]", "[cuda:0,tpu]", "[cuda:0,cpu]", "[cuda]"):
        with pytest.raises(UserError, match=r"device: (unknown device|write auto, cpu, cuda)"):
            load_config(BuildConfig, None, [*given, f"device={wrong}"])


def test_what_decides_the_bytes_is_in_the_fingerprint() -> None:
    """Precision and batches are; devices and the places of weights are not (their hashes are)."""
    here = {"structure": "liveportrait:/a/m.pth", "flame": "deca:/a/d.tar", "text": {"text_encoder": "umt5-xxl:/a"}}
    there = {"structure": "liveportrait:/b/m.pth", "flame": "deca", "text": {"text_encoder": "umt5-xxl:/b"}}

    def made_by(**given: object) -> str:
        return fingerprint(settings(**given), [], {})[0]

    assert made_by(**here, device="cpu") == made_by(**there, device="cuda:1")
    different = [
        here,
        here | {"flame": None},
        here | {"flame": "emoca"},
        here | {"text": None},
        here | {"text": {"prompt": "Another one."}},
        here | {"structure": "mediapipe"},
        here | {"dtype": "float32"},
        here | {"batch": {"clips": 2}},
    ]
    assert len({made_by(**given) for given in different}) == len(different)


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ({"structure": "livportrait"}, r"there is no 'livportrait' \(did you mean 'liveportrait'\?\)"),
        ({"structure": "mediapipe:x.task"}, "its file is models.face_landmarker"),
        ({"flame": "flame"}, "there is no 'flame'; there is deca, emoca"),
        ({"dtype": "float16"}, "'auto', 'float32' or 'bfloat16'"),
        ({"batch": {"faces": 0}}, "greater than or equal to 1"),
        ({"text": {"promt": "x"}}, "[Ee]xtra inputs"),
    ],
)
def test_wrong_settings_are_named(setting: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        settings(**setting)
