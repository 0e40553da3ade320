"""Parts of a build, made apart and joined, are the dataset that one build makes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from fake_models import FakeModels, fake_config, shards

from df_data.build import merge as merge_module
from df_data.build.build import build
from df_data.build.config import BuildConfig
from df_data.build.merge import merge
from df_data.check.validate import check_dataset
from df_data.cli import main
from df_data.format.ledger import Ledger
from df_models.errors import UserError

ORDERS = ["ok 2", "ok 1", "reject", "ok 3", "fail", "ok 2"] * 5


def make(config: BuildConfig) -> None:
    build(config, progress=False, make=FakeModels)


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    made = [tmp_path / f"part{index}" for index in (1, 2, 3)]
    for index, out in enumerate(made, start=1):
        make(fake_config(tmp_path, ORDERS, part=f"{index}/3", out=str(out)))
    return made


def test_parts_joined_are_the_whole(tmp_path: Path, parts: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    make(fake_config(tmp_path, ORDERS, out=str(tmp_path / "whole")))
    names = [set(Ledger(part / "ledger.jsonl").entries) for part in parts]
    assert not (names[0] & names[1] or names[1] & names[2] or names[0] & names[2])
    out = tmp_path / "joined"
    assert main(["merge", *map(str, parts), "--out", str(out)]) == 0
    assert "clips in" in capsys.readouterr().out
    wanted = shards(tmp_path / "whole")
    assert shards(out) == wanted and len(wanted) > 6
    whole = Ledger(tmp_path / "whole" / "ledger.jsonl").entries
    joined = Ledger(out / "ledger.jsonl").entries
    assert {n: e.model_copy(update={"seconds": {}, "scores": {}}) for n, e in joined.items()} == {
        n: e.model_copy(update={"seconds": {}, "scores": {}}) for n, e in whole.items()
    }
    assert all(check_dataset(out / split).problems == () for split in ("train", "val"))
    make(fake_config(tmp_path, ORDERS, out=str(out)))
    merge(parts[::-1], out)
    assert shards(out) == wanted, "building and joining it again change nothing"
    assert len((out / "ledger.jsonl").read_text().splitlines()) == len(ORDERS)


def tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_directory_keeps_its_part(tmp_path: Path, parts: list[Path]) -> None:
    merge(parts, tmp_path / "whole")
    for made, part in ((parts[0], "2/3"), (parts[0], "1/1"), (tmp_path / "whole", "2/3")):
        before = tree(made)
        with pytest.raises(UserError, match=rf"was made with part=1/[13], not part={part}; give each part a directory"):
            make(fake_config(tmp_path, ORDERS, part=part, out=str(made)))
        assert tree(made) == before
    again = build(fake_config(tmp_path, ORDERS, part="1/3", out=str(parts[0])), progress=False, make=FakeModels)
    assert "part 1/3 of the dataset" in str(again) and "df-data merge" in str(again)
    whole = build(fake_config(tmp_path, ORDERS, out=str(tmp_path / "whole")), progress=False, make=FakeModels)
    assert "df-data merge" not in str(whole)


def test_out_is_not_another_dataset(tmp_path: Path, parts: list[Path]) -> None:
    other, undone, bare = tmp_path / "other", tmp_path / "undone", tmp_path / "bare"
    make(fake_config(tmp_path, ORDERS, out=str(other), clips_per_shard=4))
    shutil.copytree(other, undone)
    for manifest in undone.glob("*/manifest.json"):
        manifest.unlink()
    (bare / "train").mkdir(parents=True)
    (bare / "train" / "shard-00000.tar").write_bytes(b"of someone else")
    copied = shutil.copytree(parts[1], tmp_path / "copied")
    for out, said in (
        (other, "holds something else"),
        (undone, "holds something else"),
        (bare, "holds something else"),
        (other / "train", "holds something else"),
        (parts[1], "is one of the parts"),
        (tmp_path / "x" / ".." / parts[0].name, "is one of the parts"),
        (copied, "was made with part=2/3"),
    ):
        before = tree(out.resolve())
        with pytest.raises(UserError, match=said):
            merge(parts, out)
        assert tree(out.resolve()) == before, out


def test_an_interrupted_merge_goes_on(tmp_path: Path, parts: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    merge(parts, tmp_path / "whole")
    wanted = shards(tmp_path / "whole")

    def until(step: str, calls: int) -> None:
        """Interrupt the merge in the so many-th call of one of its steps."""
        real, left = getattr(merge_module, step), [calls]

        def interrupted(*arguments: Any) -> Any:
            left[0] -= 1
            if not left[0]:
                raise KeyboardInterrupt
            return real(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(merge_module, step, interrupted)
            with pytest.raises(KeyboardInterrupt):
                merge(parts, out)

    for step, calls in (("_copy", 3), ("_join_ledgers", 1), ("atomic_write", 2), ("write_manifest", 2)):
        out = tmp_path / step
        until(step, calls)
        with pytest.raises(UserError, match="holds something else"):
            merge(others(tmp_path), out)
        merge(parts[::-1], out)
        assert shards(out) == wanted and not (out / ".merging").exists()


def others(tmp_path: Path) -> list[Path]:
    """The one part of another build."""
    make(fake_config(tmp_path, ORDERS, part="1/1", out=str(tmp_path / "another"), clips_per_shard=4))
    return [tmp_path / "another"]


def test_what_cannot_be_joined_is_refused(tmp_path: Path, parts: list[Path]) -> None:
    out = tmp_path / "joined"
    with pytest.raises(UserError, match="parts 1/3, 3/3; to join, give each of 1/3, 2/3, 3/3 once"):
        merge([parts[0], parts[2]], out)
    with pytest.raises(UserError, match="1/3, 1/3, 2/3"):
        merge([parts[0], parts[0], parts[1]], out)
    damaged = next(parts[1].glob("train/shard-*.tar"))
    data = bytearray(damaged.read_bytes())
    data[700] ^= 1
    damaged.write_bytes(bytes(data))
    with pytest.raises(UserError, match="its sha256 is not the manifest's"):
        merge(parts, out)
    damaged.unlink()
    with pytest.raises(UserError, match="the shard is missing"):
        merge(parts, out)
    assert not list(out.glob("*/manifest.json")), "nothing unfinished looks whole"
    shutil.rmtree(parts[1])
    make(fake_config(tmp_path, ORDERS, part="2/3", out=str(parts[1]), clips_per_shard=4))
    with pytest.raises(UserError, match="differ in settings"):
        merge(parts, out)


@pytest.mark.parametrize("part", ["0/3", "4/3", "1", "a/b", "1/0", ""])
def test_a_part_is_written_as_one_of_many(tmp_path: Path, part: str) -> None:
    with pytest.raises(ValueError, match="as in 2/8"):
        fake_config(tmp_path, ["ok 1"], part=part)
