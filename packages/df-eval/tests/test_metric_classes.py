"""Every metric of both lists as a torchmetrics class: at once, in batches, and over two processes."""

from __future__ import annotations

import gc
import json
import math
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.multiprocessing
from fabricated import SHIFTS, features, rows_of
from torch import distributed as dist
from torchmetrics import Metric

from df_eval.measure import GENERATED, GROUND_TRUTH, measure
from df_eval.metrics import CATALOG, SET_SPECS, SETS, SPECS, ClipRatio, Pair, SetDistance, metric_class, set_metric
from df_eval.metrics.seen import Seen
from df_eval.metrics.theval import values_of

CLIPS = 5
SHARES = {
    "one is empty": ([0, 1, 2, 3, 4], []),
    "the other is empty": ([], [0, 1, 2, 3, 4]),
    "uneven, and padded": ([0, 1, 2], [3, 4, 0]),
}
NAMES = [spec.name for spec in (*CATALOG, *SETS)]


class Clip(NamedTuple):
    """What metrics are updated with."""

    seen: Seen
    true: dict[str, Any]
    made: dict[str, Any]


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    found = []
    for index in range(CLIPS):
        truth, videos = rows_of(index, 65, 0.3, 0.2)
        seen = Seen(videos[GENERATED], truth, 5, SHIFTS)
        true, made = (
            features(videos[row])
            | {"theval": values_of(measure(row, videos[row], truth, max_lag=5, shifts=SHIFTS).pairs)}
            for row in (GROUND_TRUTH, GENERATED)
        )
        found.append(Clip(seen, true, made))
    return found


def new(name: str) -> Metric:
    return metric_class(name)() if name in SPECS else set_metric(name)


def add(metric: Metric, clips: list[Clip], chosen: list[int]) -> None:
    if not isinstance(metric, SetDistance):
        metric.update([clips[i].seen for i in chosen], chosen)
        return
    kind = metric.spec.features
    metric.update([clips[i].true[kind] for i in chosen], chosen, real=True)
    metric.update([clips[i].made[kind] for i in chosen], chosen, real=False)


def at_once(name: str, clips: list[Clip]) -> float:
    metric = new(name)
    add(metric, clips, list(range(CLIPS)))
    return float(metric.compute())


@pytest.mark.parametrize("name", NAMES)
def test_batches_give_the_same_as_all_at_once(name: str, clips: list[Clip]) -> None:
    metric = new(name)
    for batch in ([3, 4], [0], [1, 2, 3]):
        add(metric, clips, batch)
    wanted = at_once(name, clips)
    assert math.isfinite(wanted) and float(metric.compute()) == pytest.approx(wanted)
    assert metric.full_state_update is False and metric.is_differentiable is False
    better = (SPECS | SET_SPECS)[name].better
    assert metric.higher_is_better is {"higher": True, "lower": False, "truth": None}[better]


def take_part(rank: int, clips: list[Clip], store: str, out: Path) -> None:
    """One of two processes; each writes what it computes."""
    gc.disable()  # what other tests left may wait for threads that are not here
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(store, 2), rank=rank, world_size=2)
    found: dict[str, dict[str, float]] = {}
    for share, parts in SHARES.items():
        found[share] = {}
        for name in NAMES:
            metric = new(name)
            if parts[rank]:
                add(metric, clips, parts[rank])
            found[share][name] = float(metric.compute())
    (out / f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_two_processes_give_the_same_as_one(clips: list[Clip], tmp_path: Path) -> None:
    arguments = (clips, str(tmp_path / "store"), tmp_path)
    group = torch.multiprocessing.start_processes(take_part, arguments, nprocs=2, join=False, start_method="fork")
    assert group is not None
    deadline = time.monotonic() + 120
    while not group.join(timeout=10):
        assert time.monotonic() < deadline, "they wait for each other"
    wanted = {name: at_once(name, clips) for name in NAMES}
    for rank in range(2):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        for share in SHARES:
            assert found[share] == pytest.approx(wanted), (rank, share)


def test_what_cannot_be_taken_is_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"no metric 'csmi' \(did you mean 'csim'\?\)"):
        metric_class("csmi")
    with pytest.raises(ValueError, match="take SetDistance"):
        metric_class("fid")
    with pytest.raises(ValueError, match=r"'csim' is no distance of sets.*metric_class"):
        SetDistance("csim")
    fvd = SetDistance("fvd2048_16f")
    with pytest.raises(ValueError, match=r"vectors \[n, D\] of each clip, and those of clip 3 have the shape \[400\]"):
        fvd.update([np.zeros(400)], [3], real=True)
    named: Any = ["val-0"]
    with pytest.raises(ValueError, match=r"whole numbers, and these are \['val-0'\]"):
        fvd.update([np.zeros((2, 4))], named, real=True)
    with pytest.raises(ValueError, match=r"whole numbers, and these are \['val-0'\]"):
        ClipRatio().update([Pair(1.0)], named)


def test_sets_without_a_common_id_are_refused_and_numbered_ones_need_be_no_pairs() -> None:
    true, made = np.random.default_rng(0).normal(size=(2, 4, 30, 3))
    distances = []
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        fid = SetDistance("fid")
        fid.update(true, [0, 1, 2, 3], real=True)
        fid.update(made, order, real=False)
        distances.append(float(fid.compute()))
    assert distances[0] == pytest.approx(distances[1]) and distances[0] > 0
    fid = SetDistance("fid")
    fid.update(true, [0, 1, 2, 3], real=True)
    assert math.isnan(fid.compute()), "one side alone, as on a process without clips"
    fid.update(made, [4, 5, 6, 7], real=False)
    with pytest.raises(ValueError, match="no true and made clip have one id"):
        fid.compute()
