"""The same build on a local Ray cluster: same shards, and the same who is at fault."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_models import FakeModels, fake_config, shards

from df_data.build.build import build

pytest.importorskip("ray", reason="Ray is not installed (package extra df-data[ray])")

ORDERS = ["ok 2", "signal SIGSEGV", "ok 1", "ok 2", "reject", "hang", "ok 2", "ok 3", "ok 1"]


@pytest.mark.slow
def test_a_build_on_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    healed = [order if order.startswith(("ok", "reject")) else "ok 2" for order in ORDERS]
    build(fake_config(tmp_path / "healed", healed), make=FakeModels, progress=False)
    config = fake_config(tmp_path, ORDERS, workers=2, executor="ray", timeout_s=3, retries=0)
    summary = build(config, make=FakeModels, progress=False)
    assert summary.counts == {"accepted": 6, "rejected": 1, "failed": 2}
    assert dict(summary.failures) == {
        "s/001.txt": "crashed its worker (the Ray actor died)",
        "s/005.txt": "took longer than 3 s",
    }
    fake_config(tmp_path, healed)
    build(config.model_copy(update={"executor": "local", "workers": 1}), retry_failed=True, make=FakeModels)
    assert shards(tmp_path / "set") == shards(tmp_path / "healed" / "set")
