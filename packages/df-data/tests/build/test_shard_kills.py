"""Writing shards, killed before or after any change of the disk and gone on with: the bytes of an undisturbed build."""

from __future__ import annotations

from pathlib import Path

from dying_builds import build, killed_at


def tree(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_kill_at_every_write_then_resume_gives_the_same_bytes(tmp_path: Path) -> None:
    build(tmp_path / "whole")
    wanted = tree(tmp_path / "whole" / "train")
    killed = 0
    for moment in range(0, 300, 3):
        root = tmp_path / f"m{moment}"
        if not killed_at(root, moment):
            break
        killed += 1
        for shard in (root / "train").glob("shard-*.tar"):
            assert shard.read_bytes() == wanted[shard.name], "a shard under its final name is whole"
        build(root)
        assert tree(root / "train") == wanted
        assert not list(root.rglob("*.tmp*"))
        assert not (root / ".staging").exists()
    assert 14 <= killed < 100


def test_shard_is_killed_again_and_again(tmp_path: Path) -> None:
    build(tmp_path / "whole")
    for moment in (11, 14, 20, 11, 15, 20, 25, 30):
        killed_at(tmp_path / "cut", moment)
    build(tmp_path / "cut")
    assert tree(tmp_path / "cut" / "train") == tree(tmp_path / "whole" / "train")
