"""Nothing of the user's is lost: what is removed, what is locked, and what a full disk leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from df_data.format.sample import Sample
from df_data.synth.config import SynthConfig
from df_infer.run_dir import RunDir
from df_models.cli_support import MachineError
from df_models.errors import UserError
from df_models.files import mark_owned
from df_models.locks import one_writer
from df_models.settings import Location, dump_config, load_config
from df_train import engine
from df_train.cli import main
from df_train.config import TrainConfig
from df_train.preflight import preflight as preflight_run
from df_train.run import prepare, train
from df_train.saving import checkpoint
from df_train.tokenizer.config import TokenizerConfig
from df_train.tokenizer.train import preflight

MakeConfig = Callable[..., TrainConfig]
AfterSteps = Callable[..., AbstractContextManager[None]]
SHORT = {"steps": 4, "warmup": 2}
CONFIGS = Path(__file__).parents[3] / "configs" / "train"


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("flags", [[], ["--fresh"]], ids=["default", "fresh"])
@pytest.mark.parametrize("name", ["model", "samples", "eval", "checkpoints", "models"])
def test_a_directory_that_df_train_did_not_write_is_left_alone(
    config_tree: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, flags: list[str]
) -> None:
    mine = tmp_path / "mine"
    (mine / name).mkdir(parents=True)
    (mine / name / "work.txt").write_text("of years")
    (mine / "config.yaml").write_text("my: settings")
    before = contents(mine)
    file = tmp_path / "c.yaml"
    file.write_text(json.dumps(config_tree(mine, optim=SHORT)))
    for more in ([], ["--check"]):
        assert main(["--config", str(file), *flags, *more]) == 2
        error = capsys.readouterr().err.strip()
        assert f"{name}/" in error and "run.json" in error and "\n" not in error
    assert contents(mine) == before


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"objective": {"extra": {"jitter": 0.1}}}, "objective.extra: no loss 'jitter'"),
        ({"model": {"overrides": {"flame_dim": 0}}}, "the model has flame_dim=0; set objective.flame.weight=0"),
        ({"model": {"overrides": {"streams": "video"}}}, "structure_weight is above 0, but the model has no structure"),
    ],
)
def test_a_check_refuses_losses_that_a_run_would_refuse(
    config_tree: Callable[..., dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    said: str,
) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(json.dumps(config_tree(tmp_path / "run", **changes)))
    assert main(["--config", str(file), "--check"]) == 2
    assert said in capsys.readouterr().err


def test_a_check_sees_that_clips_hold_no_flame_vectors(
    make_config: MakeConfig, random_clip: Callable[..., Sample], split_at: Callable[..., None], tmp_path: Path
) -> None:
    samples = [random_clip("train", index) for index in range(2)]
    for sample in samples:
        del sample.tensors["flame"]
    split_at(tmp_path / "data", "train", samples)
    with pytest.raises(UserError, match="the dataset holds no FLAME vectors; set objective"):
        preflight_run(make_config(tmp_path / "run", data={"root": str(tmp_path / "data")}))


@pytest.mark.parametrize(
    "changes",
    [
        {"data": {"num_frames": 99}},
        {"model": {"overrides": {"audio_encoder": "hubert-large"}}},
        {"data": {"synth": {"clips": 20, "size": 16, "frames": 9}}},
    ],
    ids=["too-long", "another-encoder", "another-corpus"],
)
def test_fresh_loses_nothing_when_a_check_fails(
    make_config: MakeConfig, dataset_at: Callable[..., Path], tmp_path: Path, changes: dict[str, Any]
) -> None:
    own = {"data": {"root": str(dataset_at(tmp_path / "data"))}}
    config = make_config(tmp_path / "run", optim=SHORT, **own)
    train(config)
    before = contents(config.directory)
    both = {**own, **changes, "data": {**own["data"], **changes.get("data", {})}}
    with pytest.raises(UserError):
        train(make_config(tmp_path / "run", optim=SHORT, **both), "fresh")
    assert contents(config.directory) == before


def test_a_live_run_is_joined_by_nobody_and_a_killed_one_goes_on(make_config: MakeConfig, tmp_path: Path) -> None:
    config = make_config(tmp_path / "run", optim=SHORT)
    hold = (
        "import sys,time\nfrom pathlib import Path\nfrom df_models.locks import one_writer\n"
        "with one_writer(Path(sys.argv[1]), 'df-train'):\n print('held', flush=True)\n time.sleep(600)"
    )
    holder = subprocess.Popen([sys.executable, "-c", hold, str(config.directory)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=rf"df-train \(process {holder.pid} on "):
            train(config)
        assert os.listdir(config.directory) == [".lock"]
    finally:
        holder.kill()
        holder.wait()
    assert train(config).step == 4
    assert not (config.directory / ".lock").exists()


def test_a_forked_child_does_not_keep_its_parent_s_lock(tmp_path: Path) -> None:
    fork = (
        "import os,sys,time\nfrom pathlib import Path\nfrom df_models.locks import one_writer\n"
        "lock = one_writer(Path(sys.argv[1]), 'x')\nlock.__enter__()\n"
        "if os.fork() == 0:\n print('forked', flush=True)\n time.sleep(60)\n os._exit(0)\ntime.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", fork, str(tmp_path)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert parent.stdout is not None and parent.stdout.readline() == "forked\n"
        with pytest.raises(UserError), one_writer(tmp_path, "y"):
            pass
        parent.kill()
        parent.wait()
        with one_writer(tmp_path, "y"):
            pass
    finally:
        os.killpg(parent.pid, 9)


def test_the_checkpoints_that_are_replaced_count_as_room(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(tmp_path / "run", optim=SHORT, checkpoint={"every": 2})
    train(config)
    held = checkpoint.bytes_held(RunDir(config.directory).checkpoints)
    usage = type("Usage", (), {"free": held})  # room for two more, where 0.2 GB are asked for at the start
    monkeypatch.setattr("df_train.preflight.shutil.disk_usage", lambda path: usage)
    prepare(config, "resume")
    with pytest.raises(UserError, match="GB are free"):
        prepare(make_config(tmp_path / "another", optim=SHORT), "default")
    usage.free = -held  # as if they did not count
    with pytest.raises(UserError, match="will be replaced"):
        prepare(config, "resume")


def test_a_check_says_when_the_run_could_not_be_written(
    config_tree: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    for place, why in ((tmp_path / "file" / "run", "not a directory"), (tmp_path / ("n" * 256), "too long")):
        file = tmp_path / "c.yaml"
        file.write_text(json.dumps(config_tree(place, optim=SHORT)))
        assert main(["--config", str(file), "--check"]) == 2
        error = capsys.readouterr()
        assert why in error.err and "ready" not in error.out


@pytest.mark.parametrize("name", ["quickstart/stage1-video", "sync"])
def test_a_check_says_when_another_corpus_is_in_the_place(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = SynthConfig(clips=297, val_clips=16)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "config.yaml").write_text(dump_config(there))
    told = [f"data.root={tmp_path / 'data'}", f"run_dir={tmp_path / 'run'}", "device=cpu"]
    assert main(["--config", str(CONFIGS / f"{name}.yaml"), *told, "--check"]) == 2
    assert "holds a corpus of clips=297, not of clips=1000" in capsys.readouterr().err


def test_a_corpus_still_to_be_made_decides_the_encoders_of_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the preset: poc's own are far larger, and have to be fetched."""
    loaded: list[str] = []
    monkeypatch.setattr("df_train.preflight.load_video_vae", loaded.append)
    monkeypatch.setattr("df_train.preflight.check_disk", lambda config, model: None)
    told = [f"data.root={tmp_path / 'data'}", f"run_dir={tmp_path / 'run'}", "device=cpu"]
    preflight_run(load_config(TrainConfig, CONFIGS / "poc-bench.yaml", told))
    assert loaded == ["df-tiny"]


@pytest.mark.parametrize("owner", ["", "df-train-tokenizer"])
def test_a_tokenizer_writes_over_its_own_only(tmp_path: Path, owner: str) -> None:
    config = TokenizerConfig(run_dir=Location(tmp_path / "run"))
    (tmp_path / "run" / "vae").mkdir(parents=True)
    if owner:
        mark_owned(tmp_path / "run", owner)
        preflight(config)
        return
    with pytest.raises(UserError, match="holds vae/"):
        preflight(config)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 32 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(place)], capture_output=True)
    if made.returncode:
        pytest.skip("a small file system can be mounted by root only")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_disk_that_fills_up_is_told_and_the_last_checkpoint_stays(
    make_config: MakeConfig,
    small_disk: Path,
    monkeypatch: pytest.MonkeyPatch,
    after_steps: AfterSteps,
    asynchronous: bool,
) -> None:
    monkeypatch.setattr("df_train.preflight.check_disk", lambda config, model: None)
    saves = {"every": 2, "asynchronous": asynchronous}
    config = make_config(small_disk / "run", optim={"steps": 6, "warmup": 2}, checkpoint=saves)

    def fill(trainer: engine.Trainer) -> None:
        trainer._saves.finish()
        left = os.statvfs(small_disk)
        (small_disk / "filler").write_bytes(bytes(left.f_bavail * left.f_frsize - 100_000))

    full = pytest.raises(MachineError, match=r"disk is full: the checkpoint of step 4 .* step-2 is kept")
    with after_steps(4, act=fill), full as told:
        train(config)
    assert "\n" not in str(told.value)
    assert os.listdir(config.directory / "checkpoints") == ["step-2"]
    (small_disk / "filler").unlink()
    assert train(config).step == 6


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_directory_that_becomes_read_only_is_told_in_a_line(
    make_config: MakeConfig, tmp_path: Path, after_steps: AfterSteps, asynchronous: bool
) -> None:
    config = make_config(
        tmp_path / "run", optim={"steps": 6, "warmup": 2}, checkpoint={"every": 2, "asynchronous": asynchronous}
    )
    saves = str(config.directory / "checkpoints")

    def protect(trainer: engine.Trainer) -> None:
        trainer._saves.finish()
        for mount in (["--bind", saves, saves], ["-o", "remount,bind,ro", saves]):
            if subprocess.run(["mount", *mount], capture_output=True).returncode:
                pytest.skip("only root can mount a directory read-only")

    try:
        with (
            after_steps(4, act=protect),
            pytest.raises(UserError, match=r"Read-only .* step 4 .* step-2 is kept") as told,
        ):
            train(config)
    finally:
        subprocess.run(["umount", "-l", saves], capture_output=True)
    assert "\n" not in str(told.value)
    assert os.listdir(saves) == ["step-2"]


def test_a_disk_that_is_full_in_another_process_is_told_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_config: MakeConfig
) -> None:
    error = RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 704 vs 598")
    usage = type("Usage", (), {"free": 4096})
    monkeypatch.setattr("df_train.saving.checkpoint.shutil.disk_usage", lambda path: usage)
    assert checkpoint._for_want_of_space(error, tmp_path)
    usage.free = 1 << 30
    assert not checkpoint._for_want_of_space(error, tmp_path)
    assert not checkpoint._for_want_of_space(RuntimeError("another"), tmp_path)


def test_one_interrupt_that_comes_twice_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """`timeout` and a terminal send it to the whole group, and `uv run` forwards it."""
    now = [100.0]
    monkeypatch.setattr(engine.time, "monotonic", lambda: now[0])
    with engine.Interrupts().watch() as interrupts:
        signal.raise_signal(signal.SIGINT)
        now[0] += 0.02
        signal.raise_signal(signal.SIGINT)
        assert interrupts.reason is engine.Stop.INTERRUPTED
        now[0] += 1.0
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
