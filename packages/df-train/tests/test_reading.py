"""Training through everything that the reader can do: several lengths, URLs, marked crops, damaged shards."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

from df_data.format.manifest import read_manifest
from df_data.reading import ShardReader
from df_data.reading import source as sources
from df_data.reading.batch import Batch
from df_infer.run_log import read_log
from df_models.errors import UserError
from df_models.settings import load_config
from df_train.compiling import allow_lengths
from df_train.config import TrainConfig
from df_train.engine import Stop
from df_train.preflight import preflight
from df_train.run import train

MakeConfig = Callable[..., TrainConfig]
Interrupted = Callable[..., AbstractContextManager[None]]
BUCKETS = [3, 5, 7]


def figures(run: Path) -> list[dict[str, float]]:
    """The metrics without what depends on the clock."""
    lines = read_log(run / "metrics.jsonl")
    return [{name: value for name, value in line.items() if not name.startswith("time/")} for line in lines]


def weights(config: TrainConfig) -> bytes:
    return (config.directory / "model" / "model.safetensors").read_bytes()


# -------------------- several lengths


@pytest.mark.parametrize(
    "changes",
    [
        {"data": {"buckets": BUCKETS}},
        {
            "data": {"buckets": BUCKETS, "start": "marked", "accumulate": 2, "num_workers": 2},
            "objective": {"history": {"mode": "error_recycling", "error_bank": 8}},
        },
    ],
    ids=["buckets", "marked, error_recycling"],
)
def test_a_run_of_several_lengths_resumes_exactly(
    make_config: MakeConfig, mixed: Path, tmp_path: Path, changes: dict[str, Any], interrupted_after: Interrupted
):
    changes = {**changes, "data": {**changes["data"], "root": str(mixed)}}
    settings = {"log": {"every": 3}, "optim": {"steps": 9, "warmup": 2}, **changes}
    straight = make_config(tmp_path / "straight", **settings)
    train(straight)
    broken = make_config(tmp_path / "broken", **settings)
    with interrupted_after(5):
        assert train(broken).stop is Stop.INTERRUPTED
    assert train(broken).step == 9
    assert figures(broken.directory) == figures(straight.directory)
    assert weights(broken) == weights(straight)


def test_the_log_tells_the_lengths_and_the_wait(
    make_config: MakeConfig, mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    original = ShardReader.__iter__

    def slow(self: ShardReader) -> Iterator[Batch]:
        for batch in original(self):
            time.sleep(0.02)
            yield batch

    monkeypatch.setattr(ShardReader, "__iter__", slow)
    config = make_config(
        tmp_path / "run",
        data={"root": str(mixed), "buckets": BUCKETS},
        log={"every": 1},
        optim={"steps": 8, "warmup": 2},
    )
    train(config)
    lines = read_log(config.directory / "metrics.jsonl")
    assert {line["data/latent_frames"] for line in lines} == set(BUCKETS)
    for line in lines:
        assert line["time/data_seconds"] >= 0.02
        assert line["time/data_share"] == pytest.approx(line["time/data_seconds"] / line["time/step_seconds"])
        frames = 4 * line["data/latent_frames"]
        assert line["time/latent_frames_per_second"] == pytest.approx(frames / line["time/step_seconds"])
        assert "data/skipped" not in line


def test_clips_of_several_lengths_need_a_cut(make_config: MakeConfig, mixed: Path, tmp_path: Path):
    def refused(match: str, **data: Any) -> None:
        with pytest.raises(UserError, match=match):
            train(make_config(tmp_path / "run", data={"root": str(mixed), **data}))

    refused(r"3 to 7 latent frames; set data\.num_frames to at most 3, or data\.buckets .* \[3, 7\]")
    refused(r"data\.buckets=\[4, 7\], but the shortest clip has 3", buckets=[4, 7])
    refused(r"data\.buckets=\[3, 9\], but the longest clip has 7", buckets=[3, 9])
    refused(r"data\.num_frames=4, but the shortest clip has 3", num_frames=4)


def test_other_buckets_are_another_run(make_config: MakeConfig, mixed: Path, tmp_path: Path):
    data = {"root": str(mixed), "buckets": BUCKETS}
    train(make_config(tmp_path / "run", data=data, optim={"steps": 3, "warmup": 1}))
    changed = make_config(tmp_path / "run", data={**data, "buckets": [3, 7]}, optim={"steps": 6, "warmup": 1})
    with pytest.raises(UserError, match="buckets were changed"):
        train(changed, "resume")


def test_compiled_functions_are_allowed_a_graph_for_each_length():
    import torch._dynamo

    def graphs(lengths: int) -> int:
        torch._dynamo.reset()
        counted = []

        def backend(graph: Any, _: Any) -> Any:
            counted.append(graph)
            return graph.forward

        doubled = torch.compile(lambda x: x * 2.0, backend=backend, dynamic=False)
        for length in range(2, 2 + lengths):
            assert doubled(torch.ones(length)).sum().item() == 2.0 * length
        return len(counted)

    with torch._dynamo.config.patch(recompile_limit=8):  # monkeypatch would leave it hidden from later tests
        assert graphs(12) == 8
        allow_lengths(4)
        allow_lengths(2)
        assert graphs(12) == 12
    torch._dynamo.reset()


# -------------------- URLs and pipes


@pytest.mark.parametrize("cached", [False, True])
def test_a_run_from_a_pipe_is_that_from_the_directory(
    make_config: MakeConfig, dataset: Path, tmp_path: Path, cached: bool
):
    settings = {"optim": {"steps": 6, "warmup": 2}, "log": {"every": 3}}
    near = make_config(tmp_path / "near", **settings)
    train(near)
    cache = {"cache_dir": str(tmp_path / "cache")} if cached else {}
    far = make_config(tmp_path / "far", data={"root": f"pipe:cat {dataset}/{{}}", **cache}, **settings)
    preflight(far)
    train(far)
    assert load_config(TrainConfig, far.directory / "config.yaml") == far
    assert figures(far.directory) == figures(near.directory)
    assert weights(far) == weights(near)
    assert len(list((tmp_path / "cache").glob("*.tar"))) == (2 if cached else 0)


def test_a_url_without_a_dataset_is_told_before_anything_starts(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sources, "_PAUSE", 0.0)
    with pytest.raises(UserError, match="cannot be fetched"):
        preflight(make_config(tmp_path / "run", data={"root": f"pipe:cat {tmp_path}/none/{{}}"}))


# -------------------- damaged shards


def test_what_is_skipped_is_counted_and_told(
    make_config: MakeConfig, dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    root = Path(copytree(dataset, tmp_path / "damaged"))
    shard = read_manifest(root / "train").shards[0]
    (root / "train" / shard.name).write_bytes(bytes(shard.bytes))
    settings = {"optim": {"steps": 8, "warmup": 2}, "log": {"every": 4}, "data": {"root": str(root)}}
    with pytest.raises(UserError, match=shard.name):
        train(make_config(tmp_path / "stops", **settings))
    settings["data"]["on_error"] = "skip"
    config = make_config(tmp_path / "skips", **settings)
    with pytest.warns(UserWarning, match=rf"its {shard.count} samples are left out"):
        train(config)
    assert figures(config.directory)[-1]["data/skipped"] == shard.count
    told = f"{shard.count} damaged samples were left out (data.on_error=skip): {shard.name} ({shard.count})"
    output = capfd.readouterr()
    assert told in output.out + output.err


def test_verify_finds_a_shard_that_was_changed(make_config: MakeConfig, dataset: Path, tmp_path: Path):
    root = Path(copytree(dataset, tmp_path / "changed"))
    path = root / "train" / read_manifest(root / "train").shards[0].name
    data = bytearray(path.read_bytes())
    data[-2000] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="sha256"):
        train(make_config(tmp_path / "run", data={"root": str(root), "verify": True}))


# -------------------- several processes


def test_two_processes_take_the_same_bucket_and_train_as_one(
    make_config: MakeConfig, mixed: Path, launch: Callable[..., Any], tmp_path: Path
):
    """A shard is missing, which only the process notices whose turn it is."""
    root = Path(copytree(mixed, tmp_path / "data"))
    shard = read_manifest(root / "train").shards[0]
    (root / "train" / shard.name).unlink()
    settings: dict[str, Any] = {
        "precision": {"bf16": "off"},
        "data": {"root": str(root), "buckets": BUCKETS, "start": "marked", "on_error": "skip"},
        "optim": {"steps": 6, "floor": 1.0},
        "log": {"every": 1},
    }
    alone, together = (make_config(tmp_path / name, **settings) for name in ("alone", "together"))
    with pytest.warns(UserWarning, match="are left out"):
        train(alone)
    done = launch(together, ranks=2)
    assert done.codes == [0, 0], done.said
    runs = [figures(config.directory) for config in (alone, together)]
    assert [line["data/latent_frames"] for line in runs[0]] == [line["data/latent_frames"] for line in runs[1]]
    assert [run[-1]["data/skipped"] for run in runs] == [shard.count] * 2
    assert any(one["data/latent_frames"] != two["data/latent_frames"] for one, two in pairwise(runs[0]))
    for one, two in zip(*runs):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-3)
        assert two["loss/video"] == pytest.approx(one["loss/video"], rel=1e-3)
