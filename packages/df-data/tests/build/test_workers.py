"""Real worker processes that crash, hang and fill the disk: the build goes on, and knows whose fault it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_models import DeadlyModel, FakeModels, MissingModel, fake_config, shards

from df_data.build.build import build
from df_data.format.ledger import Ledger
from df_models.errors import UserError

HERE = Path(__file__).parent


def orders(folder: Path) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    bad = ["signal SIGSEGV", "exit 7", "hang", f"once {folder / 'a'} signal SIGKILL"]
    return ["ok 2", bad[0], "ok 1", "ok 2", "reject", "ok 1", bad[1], "ok 2", "ok 3", bad[2], "ok 1", bad[3], "ok 2"]


def test_inputs_that_crash_or_hang_their_worker_are_set_aside(tmp_path: Path) -> None:
    healed = [order if order.startswith(("ok", "reject")) else "ok 2" for order in orders(tmp_path)]
    build(fake_config(tmp_path / "healed", healed), make=FakeModels, progress=False)
    config = fake_config(tmp_path, kept := orders(tmp_path), workers=2, timeout_s=1.5)
    summary = build(config, make=FakeModels, progress=False)
    assert summary.counts == {"accepted": 9, "rejected": 1, "failed": 3}
    assert dict(summary.failures) == {
        "s/001.txt": "crashed its worker (signal 11)",
        "s/006.txt": "crashed its worker (exit code 7)",
        "s/009.txt": "took longer than 1.5 s",
    }
    ledger = Ledger(tmp_path / "set" / "ledger.jsonl")
    assert len({entry.scores["pid"] for entry in ledger.of_status("accepted")} - {os.getpid()}) >= 2
    assert summary.stage_seconds["fake"] == 9 * 0.25 and "write" in summary.stage_seconds

    again = build(config, make=FakeModels, progress=False)
    assert again.counts == summary.counts, "they are skipped the next time"

    bad = [entry.input for entry in ledger.of_status("failed")]
    fake_config(tmp_path, [new if f"s/{i:03d}.txt" in bad else old for i, (old, new) in enumerate(zip(kept, healed))])
    build(config.model_copy(update={"workers": 1}), retry_failed=True, make=FakeModels, progress=False)
    assert shards(tmp_path / "set") == shards(tmp_path / "healed" / "set")


def test_a_full_disk_in_a_worker_ends_the_build_and_loses_nothing(tmp_path: Path) -> None:
    whole = fake_config(tmp_path / "whole", ["ok 1"] * 6)
    build(whole, make=FakeModels, progress=False)
    config = fake_config(tmp_path, ["ok 1"] * 5 + ["full"], workers=2)
    with pytest.raises(OSError, match="No space left"):
        build(config, make=FakeModels, progress=False)
    assert Ledger(tmp_path / "set" / "ledger.jsonl").get("s/005.txt") is None
    fake_config(tmp_path, ["ok 1"] * 6)
    build(config.model_copy(update={"workers": 1}), make=FakeModels, progress=False)
    assert shards(tmp_path / "set") == shards(tmp_path / "whole" / "set")


def test_models_that_cannot_be_loaded_are_told_once(tmp_path: Path) -> None:
    config = fake_config(tmp_path, ["ok 1"] * 6, workers=2)
    with pytest.raises(UserError, match=r"detector\.onnx; download"):
        build(config, make=MissingModel, progress=False)
    assert not Path(config.out).exists(), "nothing stays of a build that never began"
    with pytest.raises(UserError, match=r"loading the models crashed its worker \(signal 9"):
        build(config, make=DeadlyModel, progress=False)


def test_workers_end_with_a_build_that_is_killed(tmp_path: Path) -> None:
    fake_config(tmp_path, ["ok 1"] * 3 + ["hang"] * 3)
    program = (
        f"import sys; sys.path.insert(0, {str(HERE)!r})\n"
        "from pathlib import Path\n"
        "from fake_models import *\n"
        "from df_data.build.build import build\n"
        "if __name__ == '__main__':\n"
        f"    build(fake_config(Path({str(tmp_path)!r}), [], workers=2), make=FakeModels, progress=False)\n"
    )
    script = tmp_path / "program.py"
    script.write_text(program)
    running = subprocess.Popen([sys.executable, str(script)])
    try:
        deadline = time.monotonic() + 60
        ledger = tmp_path / "set" / "ledger.jsonl"
        while not (ledger.exists() and len(ledger.read_text().splitlines()) == 3) and time.monotonic() < deadline:
            time.sleep(0.1)
        workers = _children(running.pid)
        assert len(workers) >= 2
    finally:
        running.send_signal(signal.SIGKILL)
        running.wait()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]


def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"df-data\[ray\]"):
        build(fake_config(tmp_path, ["ok 1"] * 6, executor="ray"), make=FakeModels, progress=False)


def _children(pid: int) -> list[int]:
    return [int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()]
