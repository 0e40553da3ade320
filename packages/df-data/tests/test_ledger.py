from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from pydantic import ValidationError

from df_data.format.ledger import Ledger, LedgerEntry, StagedSample, staged_samples
from df_models.errors import UserError
from df_models.locks import one_writer, open_locked

STAGED = StagedSample(key="k", shard=0, bytes=1, sha256="s")


def entries() -> list[LedgerEntry]:
    return [
        LedgerEntry(input="a.mp4", status="accepted", split="train", samples=(STAGED,), scores={"blur": 0.25}),
        LedgerEntry(input="b.mp4", status="rejected", reason="no_face", scores={"faces": 0.0}),
        LedgerEntry(input="ç.mp4", status="failed", error="the video cannot be decoded"),
    ]


def test_reads_back_and_last_line_counts(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l.jsonl")
    ledger.record(*entries())
    again = Ledger(tmp_path / "l.jsonl")
    assert list(again.entries.values()) == entries()
    assert again.counts() == {"accepted": 1, "rejected": 1, "failed": 1}
    assert again.reasons() == {"no_face": 1}
    again.record(LedgerEntry(input="ç.mp4", status="accepted", split="val", samples=(STAGED,)))
    final = Ledger(tmp_path / "l.jsonl")
    assert final.counts() == {"accepted": 2, "rejected": 1, "failed": 0}
    assert staged_samples(final.entries.values(), "val") == [STAGED]


def test_torn_last_line_at_every_byte(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    Ledger(path).record(*entries())
    whole = path.read_bytes()
    start = whole[:-1].rfind(b"\n") + 1
    for cut in range(start, len(whole)):
        path.write_bytes(whole[:cut])
        ledger = Ledger(path)
        assert list(ledger.entries) == ["a.mp4", "b.mp4"]
        assert path.read_bytes() == whole[:start], "the torn line is cut off"
        ledger.record(entries()[2])
        assert path.read_bytes() == whole


def test_damaged_middle_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    Ledger(path).record(*entries())
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b'{"input": "b.m\n' + lines[2])
    with pytest.raises(UserError, match="line 2 is damaged"):
        Ledger(path)


@pytest.mark.parametrize("status", ["accepted", "rejected", "failed"])
def test_an_end_without_its_why_is_refused(status: str) -> None:
    with pytest.raises(ValidationError, match="needs its samples, reason or error"):
        LedgerEntry.model_validate({"input": "x", "status": status})


def test_two_builds_on_one_directory(tmp_path: Path) -> None:
    with (
        one_writer(tmp_path / "d", "df-data"),
        pytest.raises(UserError, match="another process is writing"),
        one_writer(tmp_path / "d", "df-data"),
    ):
        pass
    with one_writer(tmp_path / "d", "df-data"):
        (tmp_path / "d" / "ledger.jsonl").touch()
    assert (tmp_path / "d" / "ledger.jsonl").exists()


def test_a_directory_in_which_nothing_was_written_goes_again(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), one_writer(tmp_path / "new", "df-data"):
        raise ZeroDivisionError
    assert not (tmp_path / "new").exists()
    (tmp_path / "mine").mkdir()
    with one_writer(tmp_path / "mine", "df-data"):
        pass
    assert (tmp_path / "mine").is_dir(), "one that was there stays"


def _count_up(folder: Path, times: int) -> None:
    for _ in range(times):
        handle = open_locked(folder / "lock", wait=True)
        number = int((folder / "number").read_text())
        (folder / "number").write_text(str(number + 1))
        (folder / "lock").unlink()
        os.close(handle)


def test_a_lock_that_is_removed_each_time_lets_one_in_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "number").write_text("0")
    threads = [threading.Thread(target=_count_up, args=(tmp_path, 200)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "number").read_text() == "800" and not (tmp_path / "lock").exists()


def test_halved_samples_are_counted_by_fault(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l.jsonl")
    for name, halved in (("a", {"halved_noisy": 2.0}), ("b", {"halved_blurred": 5.0, "halved_noisy": 1.0})):
        scores = halved | {"snr_db": 4.0}
        ledger.record(LedgerEntry(input=name, status="accepted", split="train", samples=(STAGED,), scores=scores))
    ledger.record(LedgerEntry(input="c", status="rejected", reason="no_face", scores={"halved_noisy": 9.0}))
    assert ledger.halved() == {"blurred": 5, "noisy": 3}
