"""What `df-data build` says, and exits with, when little or nothing came out."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_models import FakeModels, fake_config

from df_data import cli
from df_data.build.build import build
from df_data.sources.listing import list_inputs
from df_models.settings import dump_config


def outcome(root: Path, orders: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Exit code of a build of inputs with such orders."""
    (root / "c.yaml").write_text(dump_config(fake_config(root, orders)))
    monkeypatch.setattr("df_data.build.build.build", lambda c, **o: build(c, make=FakeModels, progress=False, **o))
    return cli.main(["build", "--config", str(root / "c.yaml")])


@pytest.mark.parametrize("orders", [["reject"] * 8, ["fail"] * 8, ["reject", "fail"] * 4])
def test_a_build_of_which_nothing_came_fails(
    tmp_path: Path, orders: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):  # the second has nothing to do and says the same
        assert outcome(tmp_path, orders, monkeypatch) == 1
        out = capsys.readouterr().out
        assert f"nothing was accepted; why not stands in {tmp_path / 'set' / 'ledger.jsonl'}" in out
        assert "next:" not in out
    assert cli.main(["inspect", str(tmp_path / "set")]) == 0, "as it says"


def test_one_sample_is_enough_and_an_empty_split_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert outcome(tmp_path, ["ok 1"] * 8, monkeypatch) == 0
    out = capsys.readouterr().out
    assert "next: " in out and "warning" not in out
    config = fake_config(tmp_path, ["ok 1"] * 8)
    orders = ["ok 1" if made.split == "val" else "reject" for made in list_inputs(config.sources, config.split)]
    (tmp_path / "other").mkdir()
    assert outcome(tmp_path / "other", orders, monkeypatch) == 0
    out = capsys.readouterr().out
    assert "warning: no input of train was accepted" in out and "input of val" not in out
