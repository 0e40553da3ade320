"""A build that is killed, runs out of disk or meets another one ends with the bytes of an undisturbed build."""

from __future__ import annotations

import errno
import gc
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest
from fake_models import FakeModels, fake_config, shards

from df_data.build.build import build, fingerprint
from df_data.build.config import BuildConfig, ClipConfig
from df_data.check.validate import check_dataset
from df_data.format.ledger import Ledger
from df_data.format.manifest import read_manifest, write_manifest
from df_data.sources.listing import list_inputs
from df_models.cli_support import EXIT_MACHINE, run_cli
from df_models.errors import UserError
from df_models.locks import one_writer

ORDERS = ["ok 2", "ok 1", "reject", "ok 3", "fail", "ok 2"] * 3
KILLS = 50


def make(config: BuildConfig, **options: bool) -> Any:
    return build(config, progress=False, make=FakeModels, **options)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("undisturbed")
    summary = make(fake_config(folder, ORDERS))
    assert summary.counts == {"accepted": 12, "rejected": 3, "failed": 3}
    assert all(check_dataset(folder / "set" / split).problems == () for split in ("train", "val"))
    return shards(folder / "set")


def forked(config: BuildConfig) -> int:
    """Start a build in a process of its own and return its id."""
    child = os.fork()
    if child == 0:
        gc.disable()  # what other tests left may wait for threads that are not here
        try:
            make(config)
        finally:
            os._exit(0)
    return child


def assert_nothing_half(root: Path, whole: dict[str, bytes]) -> None:
    """What stands under a shard's final name is the whole shard, and no split that is not looks complete."""
    for path in root.glob("*/shard-*.tar"):
        assert path.read_bytes() == whole[f"{path.parent.name}/{path.name}"]
    for path in root.glob("*/manifest.json"):
        complete = json.loads(path.read_bytes())["complete"]
        assert not complete or path.read_bytes() == whole[f"{path.parent.name}/manifest.json"]


def seconds_of_a_build(folder: Path) -> float:
    best = 60.0
    for index in range(3):
        config = fake_config(folder / f"timed{index}", ORDERS)
        began = time.monotonic()
        os.waitpid(forked(config), 0)
        best = min(best, time.monotonic() - began)
    return best


def test_kill_9_at_50_random_moments(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    whole, moments = seconds_of_a_build(tmp_path), random.Random(4)
    killed, done_before = 0, []
    for index in range(3 * KILLS):
        config = fake_config(tmp_path / f"k{index}", ORDERS)
        root = Path(config.out)
        child = forked(config)
        time.sleep(moments.uniform(0, whole))
        os.kill(child, signal.SIGKILL)
        if not os.WIFSIGNALED(os.waitpid(child, 0)[1]):
            continue
        killed += 1
        assert_nothing_half(root, undisturbed)
        done_before.append(len(Ledger(root / "ledger.jsonl").entries))
        make(config)
        lines = (root / "ledger.jsonl").read_text().splitlines()
        assert len(lines) == len(ORDERS), "what has a ledger line is not done twice"
        assert shards(root) == undisturbed
        assert not list(root.rglob("*.tmp*")) and not (root / ".staging").exists()
        if killed == KILLS:
            break
    assert killed == KILLS
    assert len(set(done_before)) > 10, "the kills came at different moments"


def test_killed_again_and_again(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    config, moments = fake_config(tmp_path, ORDERS), random.Random(5)
    for _ in range(10):
        child = forked(config)
        time.sleep(moments.uniform(0, 0.05))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    make(config)
    assert shards(tmp_path / "set") == undisturbed


# -------------------- disk full


class FullDisk:
    """Lets so many writes pass; the next one brings half of its bytes to disk and fails, and so do all after it."""

    def __init__(self, passes: int) -> None:
        self.left = passes

    def full(self) -> bool:
        self.left -= 1
        return self.left < 0

    def write(self, real: Callable[[Any], Any], data: bytes) -> Any:
        if self.full():
            real(data[: len(data) // 2])
            raise no_space()
        return real(data)


def no_space() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "shard")


@contextmanager
def full_after(passes: int) -> Iterator[FullDisk]:
    """Every way in which a build writes: files opened by ledger and shards, whole files, renames, fsyncs."""
    disk = FullDisk(passes)
    replace, fsync, write_bytes = os.replace, os.fsync, Path.write_bytes

    def opening(*args: Any, **options: Any) -> IO[Any]:
        file = open(*args, **options)  # noqa: SIM115
        if any(letter in str(args[1:2]) for letter in "wa"):
            real = file.write
            wrapped: Any = _Wrapped(file, lambda data: disk.write(real, data))
            return wrapped
        return file

    def guarded(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            if disk.full():
                raise no_space()
            return real(*args)

        return call

    def whole(path: Path, data: bytes) -> Any:
        return disk.write(lambda part: write_bytes(path, part), data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("df_data.format.ledger.open", opening, raising=False)
        patch.setattr("df_data.format.shards.open", opening, raising=False)
        patch.setattr(os, "replace", guarded(replace))
        patch.setattr(os, "fsync", guarded(fsync))
        patch.setattr(Path, "write_bytes", whole)
        yield disk


class _Wrapped:
    """A file whose writes are watched."""

    def __init__(self, file: IO[Any], write: Callable[[Any], Any]) -> None:
        self._file, self.write = file, write

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _Wrapped:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()


def test_disk_full_at_every_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    orders = ["ok 2", "reject", "ok 1", "fail", "ok 1"]
    make(fake_config(tmp_path / "whole", orders, clips_per_shard=2))
    wanted = shards(tmp_path / "whole" / "set")
    for passes in range(500):
        config = fake_config(tmp_path / f"p{passes}", orders, clips_per_shard=2)
        with full_after(passes) as disk:
            code = run_cli(lambda _, config=config: make(config) and 0, "df-data", [])
        said = capsys.readouterr().err
        if disk.left >= 0:
            assert code == 0
            break
        assert code == EXIT_MACHINE and said.count("\n") == 1 and "the disk is full" in said
        assert_nothing_half(tmp_path / f"p{passes}" / "set", wanted)
        make(config)
        assert shards(tmp_path / f"p{passes}" / "set") == wanted
    assert 40 < passes < 499


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_is_really_full(
    tmp_path: Path, small_disk: Path, undisturbed: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    config = fake_config(tmp_path, ORDERS, out=str(small_disk / "set"))
    assert run_cli(lambda _: make(config) and 0, "df-data", []) == EXIT_MACHINE
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "the disk is full" in said
    done = len(Ledger(small_disk / "set" / "ledger.jsonl").entries)
    assert 2 < done < len(ORDERS)
    subprocess.run(["mount", "-o", "remount,size=4m", small_disk], check=True)
    make(config)
    assert shards(small_disk / "set") == undisturbed
    assert len((small_disk / "set" / "ledger.jsonl").read_text().splitlines()) == len(ORDERS)


# -------------------- two builds, another build, failed inputs


def test_two_builds_on_one_output_refuse_each_other(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    slow = fake_config(tmp_path, [f"sleep 0.1 {order[3:]}" if "ok" in order else order for order in ORDERS])
    child = forked(slow)
    try:
        deadline = time.monotonic() + 10
        while not (tmp_path / "set" / "ledger.jsonl").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        with pytest.raises(UserError, match="another process is writing"):
            make(slow)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    make(slow)
    assert shards(tmp_path / "set") == undisturbed
    with one_writer(tmp_path / "set", "df-data"), pytest.raises(UserError, match="another process is writing"):
        make(slow)


def test_another_configuration_is_refused_and_how_it_runs_is_not(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    config = fake_config(tmp_path, ORDERS)
    make(config)
    with pytest.raises(UserError, match="another configuration"):
        make(config.model_copy(update={"clips": ClipConfig(frames=49)}))
    make(config.model_copy(update={"timeout_s": 5.0, "retries": 3}))
    assert shards(tmp_path / "set") == undisturbed
    (tmp_path / "inputs" / "999.txt").write_text("ok 1")
    with pytest.raises(UserError, match="another configuration"):
        make(config)


def test_a_dataset_of_before_a_switch_that_is_off_is_the_same(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    """A dataset that an older program made: its config has no such settings, its fingerprint does not cover them."""
    config = fake_config(tmp_path, ORDERS)
    make(config)
    out = tmp_path / "set"
    old = config.model_dump(mode="json")
    del old["flame"], old["clips"]["references"]
    (out / "config.yaml").write_text(json.dumps(old))
    older = fingerprint(config, list_inputs(config.sources, config.split), FakeModels(config).records())
    assert len(older) == 2 and older[0] != older[1]
    for split in ("train", "val"):
        write_manifest(out / split, read_manifest(out / split).model_copy(update={"build": older[1]}))
    for setting in ({"flame": "deca"}, {"clips": config.clips.model_copy(update={"references": 1})}):
        with pytest.raises(UserError, match="another configuration"):
            make(config.model_copy(update=setting))
    make(config)
    assert shards(out) == undisturbed
    assert {read_manifest(out / split).build for split in ("train", "val")} == {older[0]}
    make(config)
    assert len(fingerprint(config, list_inputs(config.sources, config.split), FakeModels(config).records())) == 1


def test_failed_inputs_are_tried_again_when_asked(tmp_path: Path) -> None:
    make(fake_config(tmp_path / "whole", [order.replace("fail", "ok 2") for order in ORDERS]))
    wanted = shards(tmp_path / "whole" / "set")
    config = fake_config(tmp_path, ORDERS)
    make(config)
    fake_config(tmp_path, [order.replace("fail", "ok 2") for order in ORDERS])
    assert make(config).counts["failed"] == 3, "they are skipped unless asked for"
    assert shards(tmp_path / "set") != wanted
    summary = make(config, retry_failed=True)
    assert summary.counts == {"accepted": 15, "rejected": 3, "failed": 0}
    assert shards(tmp_path / "set") == wanted
    assert not (tmp_path / "set" / ".staging").exists()


def test_a_retry_that_is_killed_anywhere_loses_nothing(tmp_path: Path) -> None:
    healed = [order.replace("fail", "ok 2") for order in ORDERS]
    make(fake_config(tmp_path / "whole", healed))
    wanted = shards(tmp_path / "whole" / "set")
    for moment in range(0, 500, 12):
        config = fake_config(tmp_path / f"m{moment}", ORDERS)
        make(config)
        fake_config(tmp_path / f"m{moment}", healed)
        child = os.fork()
        if child == 0:
            gc.disable()
            with full_after(moment) as disk:
                disk.full = lambda disk=disk: dying(disk)  # type: ignore[method-assign]
                make(config, retry_failed=True)
                os._exit(0)
        killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
        root = tmp_path / f"m{moment}" / "set"
        make(config, retry_failed=True)
        assert shards(root) == wanted
        if not killed:
            break
    assert 50 < moment < 480


def dying(disk: FullDisk) -> bool:
    disk.left -= 1
    if disk.left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return False
