"""Launches that go wrong and go on: killed at random, hung, out of space, on another number of processes."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from df_infer.run_log import read_log
from df_train.config import TrainConfig
from df_train.processes.watch import Place, verdict
from df_train.saving import checkpoint

MakeConfig = Callable[..., TrainConfig]
Launch = Callable[..., Any]
EXACT: dict[str, Any] = {"precision": {"bf16": "off"}, "log": {"every": 1}}


def figures(run: Path) -> list[dict[str, float]]:
    lines = read_log(run / "metrics.jsonl")
    return [{name: value for name, value in line.items() if not name.startswith("time/")} for line in lines]


def weights(config: TrainConfig) -> bytes:
    return (config.directory / "model" / "model.safetensors").read_bytes()


def losses_agree(found: list[dict[str, float]], wanted: list[dict[str, float]]) -> None:
    """Step by step; other numbers of processes add in another order, which the steps carry on."""
    assert [line["step"] for line in found] == [line["step"] for line in wanted]
    for one, other in zip(found, wanted):
        for name in ("loss", "loss/video", "loss/structure", "grad_norm"):
            assert one[name] == pytest.approx(other[name], rel=1e-3), (name, one["step"])


# ------------------------------------------------------------------------------------------------------------- killed


@pytest.mark.timeout(3000)
@pytest.mark.parametrize("kills", [5, pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_whatever_moment_it_is_killed_at_nothing_before_the_last_save_is_lost(
    make_config: MakeConfig, tmp_path: Path, launch: Launch, kills: int, ranks: int
):
    every = 3
    settings: dict[str, Any] = {**EXACT, "checkpoint": {"every": every, "asynchronous": True}}
    settings["optim"] = {"steps": 60, "warmup": 2}
    straight, killed = (make_config(tmp_path / name, **settings) for name in ("straight", "killed"))
    assert launch(straight, ranks=ranks).codes == [0] * ranks
    share = 60.0 * read_log(straight.directory / "metrics.jsonl")[-1]["time/minutes"] / 5
    draw, found, ended = random.Random(0), None, 0
    for _ in range(kills):
        ends = (killed.directory / "model").exists()
        fresh = [] if found and not ends else ["--fresh"]  # also one that left no checkpoint begins anew only if told
        done = launch(killed, *fresh, ranks=ranks, kill_after=draw.uniform(0.0, 2.0 * share))
        if done.codes == [0] * ranks:
            continue
        ended += 1
        lines = figures(killed.directory) if (killed.directory / "metrics.jsonl").exists() else []
        taken = int(lines[-1]["step"]) if lines else 0
        found = checkpoint.newest(killed.directory / "checkpoints", lambda damaged: pytest.fail(damaged))
        # the save of a step is waited for by the next save, which comes before the step after it is logged
        whole = every * max((taken - 1) // every - 1, 0)
        assert (found.step if found else 0) >= whole, taken
    assert found and ended > kills // 2
    if not (killed.directory / "model").exists():
        assert launch(killed, ranks=ranks).codes == [0] * ranks
    assert figures(killed.directory) == figures(straight.directory)
    assert weights(killed) == weights(straight)


# ----------------------------------------------------------------------------------------------- numbers of processes

KEYS = """
import json
from df_train.engine import Trainer
batch = Trainer._next_batch
def noted(self):
    given = batch(self)
    with open(self.config.directory / "keys.jsonl", "a") as file:
        file.write(json.dumps([self.state.step + 1, list(given.keys)]) + "\\n")
    return given
Trainer._next_batch = noted
"""


def clips(config: TrainConfig) -> dict[int, list[str]]:
    """The clips of each step, of all processes."""
    steps: dict[int, list[str]] = {}
    for line in (config.directory / "keys.jsonl").read_text().splitlines():
        step, keys = json.loads(line)
        steps[step] = sorted([*steps.get(step, []), *keys])
    return steps


@pytest.mark.timeout(900)
@pytest.mark.parametrize("ranks", [(1, 2, 4, 1), pytest.param((2, 2, 2, 2), marks=pytest.mark.slow)])
def test_it_goes_on_three_times_over_numbers_of_processes(
    make_config: MakeConfig, tmp_path: Path, launch: Launch, ranks: tuple[int, ...]
):
    def until(name: str, step: int) -> TrainConfig:
        settings = {**EXACT, "optim": {"steps": step, "warmup": 1, "floor": 1.0}}
        return make_config(tmp_path / name, checkpoint={"every": 1, "asynchronous": True}, **settings)

    straight, broken = until("straight", 8), until("broken", 8)
    assert launch(straight, ranks=ranks[0], code=KEYS).codes == [0] * ranks[0]
    for turn, count in enumerate(ranks):
        part = until("broken", 2 * turn + 2)
        assert launch(part, *(["--resume"] if turn else []), ranks=count, code=KEYS).codes == [0] * count
    assert clips(broken) == clips(straight) and all(len(keys) == 4 for keys in clips(broken).values())
    if len(set(ranks)) == 1:
        assert weights(broken) == weights(straight)
    losses_agree(figures(broken.directory), figures(straight.directory))


# --------------------------------------------------------------------------------------------------------------- hung

HANGS = {
    "reading data": """
import time
from df_data.reading import ShardReader
batches = ShardReader.__iter__
def asleep(self):
    for place, batch in enumerate(batches(self)):
        if RANK == 1 and place == 2:
            time.sleep(1000)
        yield batch
ShardReader.__iter__ = asleep
""",
    "taking the step": """
import time
from df_train.objective import Objective
measure = Objective.__call__
def asleep(self, model, batch, step, banks):
    if RANK == 1 and step == 2:
        time.sleep(1000)
    return measure(self, model, batch, step, banks)
Objective.__call__ = asleep
""",
}


@pytest.mark.parametrize("doing", HANGS)
def test_a_rank_that_hangs_is_named(make_config: MakeConfig, tmp_path: Path, launch: Launch, doing: str):
    config = make_config(tmp_path / "run", **EXACT, hang_minutes=0.3)
    done = launch(config, ranks=2, code=HANGS[doing])
    assert done.codes == [76, 76], done.said
    told = [line for text in done.said for line in text.splitlines() if "error" in line]
    assert len(told) == 1, done.said
    named = rf"no progress for 0.3 minutes .* rank 1 on \S+ is at step 3, {doing} \(<string>:\d+, asleep\)"
    assert re.search(named, told[0]), told
    assert "; rank 0 waits, at step 3, taking the step" in told[0]


def place(count: int, *, waits: bool = False, beat: int = 0) -> Place:
    return Place(beat, count, 7, "data" if count % 2 else "step", "a.py:1, f", waits, "node")


def test_who_holds_up_the_others():
    both = {0: place(4, waits=True), 1: place(3)}
    assert verdict(both, both, 2) == (
        "rank 1 on node is at step 7, reading data (a.py:1, f); rank 0 waits, at step 7, taking the step (a.py:1, f)"
    )
    alike = {0: place(4, waits=True), 1: place(4), 2: place(4, waits=True)}
    assert verdict(alike, alike, 3).startswith(
        "rank 1 on node is at step 7, taking the step (a.py:1, f); rank 0, 2 wait"
    )
    all_wait = {0: place(4, waits=True), 1: place(4, waits=True)}
    assert verdict(all_wait, all_wait, 2).endswith("none is behind the others")
    assert (
        verdict({0: both[0]}, both, 2) == "rank 1 does not answer (it was on node, at step 7, reading data (a.py:1, f))"
    )
    assert verdict({0: both[0]}, {0: both[0]}, 2) == "rank 1 does not answer (it never did)"
