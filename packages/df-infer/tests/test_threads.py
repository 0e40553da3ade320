from __future__ import annotations

import pytest
import torch

from df_infer import cli
from df_infer.config import RolloutConfig
from df_infer.model_options import open_pipeline
from df_infer.pipeline import Pipeline
from df_infer.threads import SMALL_LAYER, core_beside, layer_work, suited_threads
from df_models import preset_config
from df_models.errors import UserError

GUIDED = RolloutConfig(audio_guidance=2.0)


def test_a_layers_work_is_that_of_all_it_computes_at_once() -> None:
    """By hand, of the quickstart's video tower: 16 tokens of width 512, seeing 9 frames; the rest is little."""
    config, one = preset_config("quickstart"), RolloutConfig(window=8, sinks=1)
    by_hand = 2 * 16 * (4 * 512**2 + 2 * 512 * 1536) + 2 * 16 * 2 * 512**2 + 4 * 9 * 16 * 16 * 512 + 4 * 16 * 16 * 512
    assert by_hand < layer_work(config, one) < 1.4 * by_hand
    assert layer_work(config, one.model_copy(update={"audio_guidance": 2.0})) == 2 * layer_work(config, one)
    assert layer_work(config, one.model_copy(update={"chunk": 2})) == 2 * layer_work(config, one)


@pytest.mark.parametrize(("preset", "threads"), [("quickstart", 1), ("poc", None), ("dualforce-1.5b", None)])
def test_only_small_layers_take_one_thread(monkeypatch: pytest.MonkeyPatch, preset: str, threads: int | None) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("df_infer.threads.usable_cores", lambda: 8)
    assert suited_threads(preset_config(preset), GUIDED) == threads
    assert (layer_work(preset_config(preset), GUIDED) < SMALL_LAYER) == (threads == 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert suited_threads(preset_config(preset), GUIDED) is None, "the user has said how many"


def test_the_commands_compute_in_as_many(model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("df_infer.threads.usable_cores", lambda: 8)
    opened = Pipeline(model, None, None, None, GUIDED)
    monkeypatch.setattr(Pipeline, "from_run", lambda *_, **__: opened)
    for more, threads in ((["--threads", "2"], 2), ([], 1)):
        torch.set_num_threads(3)
        assert open_pipeline(cli.build_parser().parse_args(["serve", "--run", "r", *more])) is opened
        assert torch.get_num_threads() == threads
    with pytest.raises(UserError, match="0 CPU threads: give 1 or more"):
        open_pipeline(cli.build_parser().parse_args(["generate", "--run", "r", "--threads", "0"]))
    with pytest.raises(UserError, match="9 CPU threads: this process may use 8 cores"):
        open_pipeline(cli.build_parser().parse_args(["serve", "--run", "r", "--threads", "9"]))


def test_only_a_core_that_is_idle_is_taken_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("df_infer.threads.usable_cores", lambda: 2)
    torch.set_num_threads(1)
    assert core_beside(cpu, None) and not core_beside(cpu, 1), "the threads asked for are all that is taken"
    assert not core_beside(cuda, None)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert not core_beside(cpu, None)
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr("df_infer.threads.usable_cores", lambda: 1)
    assert not core_beside(cpu, None)
    monkeypatch.setattr("df_infer.threads.usable_cores", lambda: 16)
    torch.set_num_threads(8)
    assert not core_beside(cpu, None), "a model that takes several threads takes all that it gains by"
