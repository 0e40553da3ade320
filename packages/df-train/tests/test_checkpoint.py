from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from df_models.errors import UserError
from df_train.config import CheckpointConfig
from df_train.processes.distributed import World, open_world
from df_train.saving import checkpoint
from df_train.saving.checkpoint import DamagedCheckpoint, RankState
from df_train.saving.saves import Saves

Writer = Callable[[Path, int, World], Path]


@pytest.fixture
def world():
    with open_world("cpu") as world:
        yield world


def write(root: Path, step: int, world: World) -> Path:
    tensors = {"model": {"weight": torch.full((4, 3), float(step))}}
    own = RankState({"reader": {"offset": step}}, {"bank": torch.arange(step)})
    checkpoint.save(root, step, tensors, own, {"seconds": 1.5}, world, keep=9)
    return root / f"step-{step}"


def write_beside(root: Path, step: int, world: World) -> Path:
    """The same by the other thread, while the tensors change."""
    tensors = {"model": {"weight": torch.full((4, 3), float(step))}}
    with Saves(root, CheckpointConfig(asynchronous=True, keep=9), world) as saves:
        saves.save(
            step, tensors, RankState({"reader": {"offset": step}}, {"bank": torch.arange(step)}), {"seconds": 1.5}
        )
        tensors["model"]["weight"].zero_()
    return root / f"step-{step}"


WRITERS = pytest.mark.parametrize("written", [write, write_beside], ids=["sync", "async"])


@WRITERS
def test_what_is_saved_is_loaded_equal(tmp_path: Path, world: World, written: Writer):
    info = checkpoint.verify(written(tmp_path, 7, world))
    assert (info.step, info.world_size, info.values["seconds"]) == (7, 1, 1.5)
    tensors = {"model": {"weight": torch.zeros(4, 3)}}
    checkpoint.load_tensors(info, tensors)
    assert torch.equal(tensors["model"]["weight"], torch.full((4, 3), 7.0))
    own = checkpoint.load_rank(info, 0)
    assert own.values == {"reader": {"offset": 7}}
    assert torch.equal(own.tensors["bank"], torch.arange(7))


def test_the_newest_whole_checkpoint_is_chosen_by_number(tmp_path: Path, world: World):
    for step in (9, 10, 100):
        write(tmp_path, step, world)
    found = checkpoint.newest(tmp_path, lambda message: pytest.fail(message))
    assert found is not None
    assert found.step == 100


def test_no_checkpoint_is_none(tmp_path: Path):
    assert checkpoint.newest(tmp_path / "absent", lambda message: pytest.fail(message)) is None


@pytest.mark.parametrize("name", ["tensors/.metadata", "tensors/__0_0.distcp", "rank-0.json", "rank-0.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "cut", "changed"])
@WRITERS
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    tmp_path: Path, world: World, written: Writer, name: str, damage: str
):
    written(tmp_path, 1, world)
    file = written(tmp_path, 2, world) / name
    data = bytearray(file.read_bytes())
    if damage == "missing":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(data[:-1])
    else:
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    told: list[str] = []
    found = checkpoint.newest(tmp_path, told.append)
    assert found is not None
    assert found.step == 1
    assert len(told) == 1
    assert name in told[0]


@pytest.mark.parametrize("name", ["trainer.json", "files-0.json"])
def test_a_checkpoint_without_its_lists_is_damaged(tmp_path: Path, world: World, name: str):
    path = write(tmp_path, 1, world)
    (path / name).unlink()
    with pytest.raises(DamagedCheckpoint, match=name):
        checkpoint.verify(path)


def test_only_damaged_checkpoints_are_an_error_not_a_fresh_start(tmp_path: Path, world: World):
    (write(tmp_path, 1, world) / "trainer.json").write_text("{")
    with pytest.raises(UserError, match="no whole checkpoint"):
        checkpoint.newest(tmp_path, lambda message: None)


def test_a_write_that_was_killed_leaves_nothing_that_looks_whole(tmp_path: Path, world: World, monkeypatch):
    write(tmp_path, 1, world)

    rename = os.rename

    def killed(source: Path, target: Path) -> None:
        if Path(target).name == "step-2":
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, 2, world)
    found = checkpoint.newest(tmp_path, lambda message: pytest.fail(message))
    assert found is not None
    assert found.step == 1


def test_a_checkpoint_of_another_model_is_told_in_a_line(tmp_path: Path, world: World):
    info = checkpoint.verify(write(tmp_path, 1, world))
    for other in ({"model": {"weight": torch.zeros(5, 3)}}, {"model": {"another": torch.zeros(4, 3)}}):
        with pytest.raises(UserError, match=r"step-1 does not fit the model of the config") as told:
            checkpoint.load_tensors(info, other)
        assert "\n" not in str(told.value)


def test_another_format_is_refused(tmp_path: Path, world: World):
    path = write(tmp_path, 1, world)
    trainer = json.loads((path / "trainer.json").read_text())
    (path / "trainer.json").write_text(json.dumps({**trainer, "format": 99}))
    with pytest.raises(DamagedCheckpoint, match="format 99"):
        checkpoint.verify(path)


def test_pruning_keeps_the_newest_and_removes_leftovers(tmp_path: Path, world: World):
    for step in (5, 10, 20):
        write(tmp_path, step, world)
    (tmp_path / "step-15.tmp").mkdir()
    checkpoint.prune(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-10", "step-20"]
