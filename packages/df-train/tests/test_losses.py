"""Losses and gradient norms are what they were, and the same however they are computed.

`golden.json` holds those of each task over some steps: `DF_GOLDEN=write uv run pytest -n 0 THIS_FILE -k golden` writes
it anew, for a change that is meant. To add a task is to add its settings to `TASKS`; `sync` has its own loop. A run
of this file itself takes the same steps in several processes (`run_processes`).
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from df_models import DualForce
from df_models.errors import UserError
from df_models.settings import merge, validate_config
from df_train.config import TrainConfig
from df_train.data.dataset import open_reader, prepare_data, training_manifest
from df_train.engine import Trainer
from df_train.processes import peers
from df_train.processes.distributed import open_world
from df_train.processes.sharding import blocks_of
from df_train.run import build
from df_train.saving import checkpoint, state
from df_train.sync.config import SyncConfig
from df_train.sync.train import new_state, take_step

MakeConfig = Callable[..., TrainConfig]
Tree = Callable[..., dict[str, Any]]
Figures = list[list[float]]
"""Of each step: the loss and the norm of the gradient, over all processes."""

GOLDEN = Path(__file__).with_name("golden.json")
TASKS: dict[str, dict[str, Any]] = {
    "model": {"objective": {"flame": {"decay_steps": 20}}},
    "video": {},
    "distill": {
        "distill": {"levels": 4, "audio_guidance": 2.0, "own_histories": 0.5},
        "rollout": {"steps": 2, "context_noise": 0.1},
    },
}
GOLDEN_STEPS = 20
TOLERANCE = 1e-3

EXACT: dict[str, Any] = {
    "precision": {"bf16": "off"},
    "optim": {"steps": 6, "warmup": 1, "floor": 1.0},
    "objective": {"history": {"mode": "teacher_forcing"}},
}
SWITCHES: dict[str, dict[str, Any]] = {
    "checkpointing": {"checkpointing": "every"},
    "checkpointing-2": {"checkpointing": 2, "group": "block"},
    "keep": {"group": "block", "reshard_after_forward": False},
    "prefetch": {"prefetch": 2},
    "offload": {"offload": True},
    "all": {
        "checkpointing": "every",
        "compile": "layers",
        "prefetch": 2,
        "offload": True,
    },
}
TWO_COPIES = {"replicate": 2}
STEPS, HALF = 4, 2


# ------------------------------------------------------------------------------------------------------ taking steps


@contextmanager
def compiled_without_code() -> Iterator[None]:
    """Layers are traced and run as they are: making code of them takes a CPU a minute (`test_model_backends.py`)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DualForce, "compile_layers", partialmethod(DualForce.compile_layers, backend="eager"))
        yield


@contextmanager
def begun(tree: dict[str, Any]) -> Iterator[Trainer]:
    config = validate_config(TrainConfig, tree)
    with open_world(config.device, replicate=config.sharding.replicate) as world, compiled_without_code():
        training, objective, *_ = build(config, world, prepare_data(config, world))
        yield Trainer(config, training, objective, world, [], lambda _: None)


def take(trainer: Trainer, steps: int) -> Figures:
    figures = []
    for _ in range(steps):
        trainer.step()
        assert trainer._norm is not None
        figures.append([trainer.state.meter.read(trainer.world)["loss"], trainer._norm.item()])
    return figures


def straight(tree: dict[str, Any], steps: int = STEPS) -> Figures:
    with begun(tree) as trainer:
        return take(trainer, steps)


def resumed(tree: dict[str, Any], step: int, steps: int) -> Figures:
    """Some steps from a checkpoint on, and another checkpoint, whole when this returns."""
    with begun(tree) as trainer:
        if step:
            place = trainer.config.directory / "checkpoints" / f"step-{step}"
            state.restore(trainer.state, checkpoint.read_info(place), trainer.world)
        with trainer._saves as saves:
            figures = take(trainer, steps)
            trainer.save()
            saves.finish()
        return figures


def in_parts(tree: dict[str, Any], *stops: int) -> Figures:
    """The same steps, interrupted after these."""
    parts = zip((0, *stops), (*stops, STEPS))
    return [figures for begin, end in parts for figures in resumed(tree, begin, end - begin)]


def agree(found: Figures, wanted: Figures, tolerance: float = TOLERANCE) -> None:
    assert len(found) == len(wanted)
    for step, (one, other) in enumerate(zip(found, wanted), start=1):
        assert one == pytest.approx(other, rel=tolerance), f"step {step}"


# ------------------------------------------------------------------------------------------------- several processes


def take_part(rank: int, count: int, port: int, plan: dict[str, dict[str, Any]], out: Path) -> None:
    """One of `count` processes; the first writes everyone's figures."""
    torch.set_num_threads(1)
    names = {"RANK": rank, "WORLD_SIZE": count, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in names.items()})
    group = dist.PrefixStore("group", peers.store())
    dist.init_process_group("gloo", store=group, rank=rank, world_size=count)
    results = {}
    for name, tree in plan.items():
        results[name] = straight(tree)
        if name == "all":
            results["interrupted"] = in_parts(tree, 1, HALF)
    if rank == 0:
        out.write_text(json.dumps(results))
    dist.destroy_process_group()


def run_processes(path: Path) -> None:
    """Take the steps of a file of plans by number of processes; they are forked, so that all is imported once."""
    for count, plan in json.loads(path.read_text()).items():
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        arguments = (int(count), port, plan, path.with_name(f"figures-{count}.json"))
        torch.multiprocessing.start_processes(take_part, arguments, nprocs=int(count), start_method="fork")


@pytest.fixture(scope="module")
def tree(config_tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """The settings of a run that is compared, with others for its `sharding`."""
    root = tmp_path_factory.mktemp("losses")

    def settings(name: str, sharding: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
        return config_tree(root / name, **merge(EXACT, {"sharding": sharding or {}, **changes}))

    return settings


@pytest.fixture(scope="module")
def alone(tree: Tree) -> Figures:
    """The figures of one process, everything switched off."""
    return straight(tree("alone"))


@pytest.fixture(scope="module")
def together(tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Figures]:
    """The figures of two and four processes, and of two copies sharded over two."""
    root = tmp_path_factory.mktemp("together")
    everything = {**SWITCHES["all"], **TWO_COPIES, "compile": "none"}  # tracing takes each process some ten seconds
    plans = {
        "2": {"2": tree("2")},
        "4": {"4": tree("4"), "all": tree("all", everything, checkpoint={"asynchronous": True})},
    }
    (root / "plans.json").write_text(json.dumps(plans))
    command = [sys.executable, __file__, str(root / "plans.json")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    return {name: found for count in plans for name, found in _read(root / f"figures-{count}.json").items()}


def _read(path: Path) -> dict[str, Figures]:
    return json.loads(path.read_text())


# ------------------------------------------------------------------------------------------------------------- tests


@pytest.mark.parametrize("task", TASKS)
def test_losses_and_gradients_of_a_task_are_the_golden_ones(
    config_tree: Tree,
    tiny_model: dict[str, int],
    open_gates: Callable[[torch.nn.Module], None],
    tmp_path: Path,
    task: str,
):
    settings = {"precision": {"bf16": "off"}, "optim": {"steps": GOLDEN_STEPS, "warmup": 2}}
    if task == "distill":
        save_teacher(tmp_path / "teacher", tiny_model, open_gates)
        settings["model"] = {"start_from": str(tmp_path / "teacher")}
    tree = config_tree(tmp_path / "run", **merge({**settings, "task": task}, TASKS[task]))
    agree_with_golden(task, straight(tree, GOLDEN_STEPS))


def save_teacher(place: Path, sizes: dict[str, int], open_gates: Callable[[torch.nn.Module], None]) -> None:
    """A model of random weights in which everything that it is given matters."""
    torch.manual_seed(0)
    teacher = DualForce.from_preset("quickstart", **sizes)
    open_gates(teacher)
    teacher.set_structure_statistics(torch.full((70,), 3.0), torch.full((70,), 2.0))
    teacher.save_pretrained(place)


def test_losses_and_gradients_of_the_lip_sync_expert_are_the_golden_ones(dataset: Path):
    tree = {
        "expert": {"window": 1, "grid": 4, "width": 16, "embedding": 32},
        "data": {"root": str(dataset), "batch_size": 8},
        "optim": {"steps": GOLDEN_STEPS, "warmup": 2},
        "device": "cpu",
    }
    config = validate_config(SyncConfig, tree)
    manifest = training_manifest(config.data)
    with open_world(config.device) as world:
        reader = open_reader(config.data, config.seed, config.expert.audio_pool, world)
        expert = new_state(config, manifest, reader, world.device)
        steps = [take_step(expert, config) for _ in range(GOLDEN_STEPS)]
    agree_with_golden("sync", [[step["loss"].item(), step["grad_norm"].item()] for step in steps])


def agree_with_golden(task: str, found: Figures) -> None:
    """Compare with the golden figures of a task, or make these its golden ones (`DF_GOLDEN=write`)."""
    golden = _read(GOLDEN) if GOLDEN.exists() else {}
    if os.environ.get("DF_GOLDEN") == "write":
        golden[task] = [[float(f"{value:.6g}") for value in step] for step in found]
        lines = [f" {json.dumps(name)}: [\n  {_lines(steps)}\n ]" for name, steps in golden.items()]
        GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    agree(found, golden[task])


def _lines(steps: Figures) -> str:
    return ",\n  ".join(json.dumps(step) for step in steps)


@pytest.mark.parametrize("name", SWITCHES)
def test_how_layers_are_computed_changes_no_loss(tree: Tree, alone: Figures, name: str):
    agree(straight(tree(name, SWITCHES[name])), alone, 1e-5)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["2", "4", "all"])
def test_several_processes_have_the_losses_of_one(together: dict[str, Figures], alone: Figures, name: str):
    agree(together[name], alone)


@pytest.mark.timeout(300)
def test_a_run_with_everything_switched_on_is_the_same_in_three_parts_bit_by_bit(together: dict[str, Figures]):
    assert together["interrupted"] == together["all"]


@pytest.mark.timeout(300)
def test_one_process_goes_on_where_two_by_two_stopped(together: dict[str, Figures], tree: Tree, alone: Figures):
    agree(resumed(tree("all"), HALF, STEPS - HALF), alone[HALF:])


def test_switches_reach_the_model(tree: Tree):
    with begun(tree("reached", {**SWITCHES["all"], "reshard_after_forward": False})) as trainer:
        model, blocks = trainer.state.model, blocks_of(trainer.state.model)
        order: list[Any] = []
        for block in blocks:
            block.register_forward_pre_hook(lambda module, _: order.append(module))
        take(trainer, 1)
    assert model.gradient_checkpointing == 1
    assert order[: len(blocks)] == blocks and len(order) == 2 * len(blocks), "in this order, and once more backward"
    states = [block._get_fsdp_state() for block in blocks if isinstance(block, FSDPModule)]
    assert len(states) == len(blocks) == 5
    assert [found._states_to_forward_prefetch for found in states] == [states[i + 1 : i + 3] for i in range(5)]
    assert states[4]._states_to_backward_prefetch == [states[3], states[2]]
    assert not any(group.post_forward_mesh_info for found in states for group in found._fsdp_param_groups)
    assert all(hasattr(block.forward, "_torchdynamo_orig_callable") for block in blocks)
    weights = next(model.parameters())
    assert isinstance(weights, DTensor) and weights.device.type == "cpu"


def test_copies_that_do_not_divide_the_processes_are_refused(tree: Tree):
    with pytest.raises(UserError, match=r"replicate=2 does not divide the 1 processes .* one of 1$"):
        straight(tree("odd", TWO_COPIES))


def test_prefetching_needs_blocks(make_config: MakeConfig, tmp_path: Path):
    with pytest.raises(UserError, match=r"prefetch=1 .* group=model"):
        make_config(tmp_path, sharding={"group": "model", "prefetch": 1})


def test_a_recorded_switch_still_reads(make_config: MakeConfig, tmp_path: Path):
    found = [make_config(tmp_path, sharding={"compile": value}).sharding.compile for value in (True, False, "layers")]
    assert found == ["layers", "none", "layers"]


if __name__ == "__main__":
    run_processes(Path(sys.argv[1]))
