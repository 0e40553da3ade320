"""Fine-tuning by a low-rank adapter: what it trains, what it leaves behind, and what it refuses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from df_infer.run_dir import find_adapter
from df_infer.run_log import read_log
from df_models import DualForce
from df_models.errors import UserError
from df_models.model.adapter import add_adapter, read_adapter, weights_hash
from df_models.model.config import DualForceConfig
from df_train.adapter import start_adapter
from df_train.begin import build_model
from df_train.config import TrainConfig
from df_train.engine import Stop
from df_train.run import train

pytest.importorskip("peft")  # an extra, which the machine that measures GPUs does without

MakeConfig = Callable[..., TrainConfig]
Interrupted = Callable[..., AbstractContextManager[None]]
EXACT: dict[str, Any] = {"precision": {"bf16": "off"}}
LORA: dict[str, Any] = {"adapter": {"kind": "lora", "rank": 2, "alpha": 4}}


def figures(run: Path) -> list[dict[str, float]]:
    lines = read_log(run / "metrics.jsonl")
    return [{name: value for name, value in line.items() if not name.startswith("time/")} for line in lines]


def inputs(config: DualForceConfig) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return {
        "video": noise(1, 3, 16, 2, 2),
        "structure": noise(1, 3, 4, config.structure_dim),
        "audio": noise(1, 3, 4, config.audio_dim),
        "sigma_video": torch.rand(1, 3, generator=generator),
        "sigma_structure": torch.rand(1, 3, generator=generator),
        "reference_latent": noise(1, 16, 2, 2),
    }


@pytest.fixture(scope="module")
def base(
    make_config: MakeConfig, tmp_path_factory: pytest.TempPathFactory, open_gates: Callable[[nn.Module], None]
) -> Path:
    """A model that counts as trained, with nothing in it at zero."""
    model = build_model(make_config(tmp_path_factory.mktemp("base") / "run"))
    torch.manual_seed(0)
    open_gates(model)
    model.set_structure_statistics(torch.full((70,), 3.0), torch.full((70,), 2.0))
    path = tmp_path_factory.mktemp("base") / "model"
    model.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def of_person(make_config: MakeConfig, base: Path) -> MakeConfig:
    """A run that trains an adapter beside `base`."""

    def make(run_dir: Path, **changes: Any) -> TrainConfig:
        settings = {"optim": {"steps": 4, "warmup": 1, "lr": 1e-2}, "log": {"every": 1}, **EXACT, **LORA, **changes}
        return make_config(run_dir, model={"start_from": str(base)}, **settings)

    return make


@pytest.fixture(scope="module")
def finished(of_person: MakeConfig, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    config = of_person(tmp_path_factory.mktemp("run") / "person", checkpoint={"every": 100, "milestones": [2]})
    train(config)
    return config


def test_only_the_adapters_layers_change_and_the_rest_is_the_base_to_the_bit(finished: TrainConfig, base: Path):
    before, after = (load_file(path / "model.safetensors") for path in (base, finished.directory / "model"))
    adapter = read_adapter(finished.directory / "model" / "adapter")
    assert before.keys() == after.keys()
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert changed == {f"{layer}.weight" for layer in adapter.layers}
    assert all(".blocks." in name or "fusion." in name or "reference." in name for name in changed)


def test_a_checkpoint_holds_the_adapter_and_not_the_weights(finished: TrainConfig):
    from torch.distributed.checkpoint import FileSystemReader

    checkpoint = finished.directory / "checkpoints" / "step-4"
    names = FileSystemReader(checkpoint / "tensors").read_metadata().state_dict_metadata
    held = {name for name in names if not name.startswith("optimizer.steps")}
    assert {name for name in held if "lora_" not in name} == {"model.structure_mean", "model.structure_std"}
    assert {name.partition(".")[0] for name in held} == {"model", "average", "optimizer"}


@pytest.mark.parametrize("kept", ["model", "models/step-2"])
def test_the_base_with_its_adapter_is_the_runs_own_model_to_the_bit(finished: TrainConfig, base: Path, kept: str):
    own = DualForce.from_pretrained(finished.directory / kept).eval()
    found = DualForce.from_pretrained(base).eval()
    adapter = read_adapter(find_adapter(finished.directory / kept))
    plain = found(**inputs(found.config))
    add_adapter(found, adapter, weights_hash(base))
    assert all(torch.equal(own.state_dict()[name], value) for name, value in found.state_dict().items())
    assert found.config == own.config
    answer, wanted = (model(**inputs(model.config)) for model in (found, own))
    assert torch.equal(answer.video, wanted.video)
    assert torch.equal(answer.structure, wanted.structure)
    assert not torch.allclose(answer.video, plain.video)


def test_merged_and_unmerged_answer_alike_and_peft_reads_what_is_written(finished: TrainConfig, base: Path):
    from peft import PeftModel

    beside = PeftModel.from_pretrained(
        DualForce.from_pretrained(base),  # pyright: ignore[reportArgumentType]
        finished.directory / "model" / "adapter",
    ).eval()
    merged = DualForce.from_pretrained(finished.directory / "model").eval()
    answer, wanted = (model(**inputs(merged.config)) for model in (beside, merged))
    torch.testing.assert_close(answer.video, wanted.video, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(answer.structure, wanted.structure, rtol=1e-5, atol=1e-5)


def test_the_first_step_begins_at_the_base_itself(of_person: MakeConfig, base: Path, tmp_path: Path):
    config = of_person(tmp_path / "run")
    plain, begun = build_model(config), build_model(config)
    assert start_adapter(begun, config) is not None
    answer, wanted = (model(**inputs(model.config)) for model in (begun, plain))
    assert torch.equal(answer.video, wanted.video)


def test_a_run_that_is_interrupted_goes_on_exactly(
    of_person: MakeConfig, tmp_path: Path, interrupted_after: Interrupted
):
    settings = {"adapter": {**LORA["adapter"], "dropout": 0.3}, "checkpoint": {"every": 100}}
    settings |= {"validation": {"every": 2, "clips": 1}}
    straight, broken = (of_person(tmp_path / name, **settings) for name in ("straight", "broken"))
    train(straight)
    torch.manual_seed(99)
    with interrupted_after(3):
        assert train(broken).stop is Stop.INTERRUPTED
    torch.manual_seed(7)
    assert train(broken).stop is Stop.DONE
    assert figures(broken.directory) == figures(straight.directory)
    files = [c.directory / "model" / "adapter" / "adapter_model.safetensors" for c in (straight, broken)]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("sharding", [{"group": "block", "checkpointing": "every"}, {"compile": True}])
def test_how_it_is_computed_changes_no_loss(
    of_person: MakeConfig,
    finished: TrainConfig,
    tmp_path: Path,
    sharding: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
):
    compile_layers = DualForce.compile_layers  # making code for a CPU takes minutes
    monkeypatch.setattr(DualForce, "compile_layers", lambda model: compile_layers(model, backend="eager"))
    config = of_person(tmp_path / "run", sharding=sharding, checkpoint={"every": 100})
    train(config)
    for one, other in zip(figures(config.directory), figures(finished.directory), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)


@pytest.mark.parametrize(
    ("adapter", "said"),
    [
        ({"targets": ["qq"]}, "no layer's name ends in 'qq' (did you mean 'q'?)"),
        ({"targets": ["time_projection.1"]}, "keeps float32"),
        ({"targets": ["self_attn"]}, "is no linear layer"),
    ],
)
def test_layers_that_cannot_have_one_are_named(
    of_person: MakeConfig, tmp_path: Path, adapter: dict[str, Any], said: str
):
    config = of_person(tmp_path / "run", adapter={**LORA["adapter"], **adapter})
    with pytest.raises(UserError) as error:
        train(config)
    assert said in str(error.value)
    assert not (tmp_path / "run").exists()


def test_an_adapter_needs_a_trained_model_that_is_left_as_it_is(
    make_config: MakeConfig, of_person: MakeConfig, tmp_path: Path
):
    with pytest.raises(ValueError, match=r"name it in model\.start_from"):
        make_config(tmp_path / "run", **LORA)
    config = of_person(tmp_path / "run")
    build_model(make_config(tmp_path / "new")).save_pretrained(tmp_path / "untrained")
    untrained = config.model.model_copy(update={"start_from": str(tmp_path / "untrained")})
    with pytest.raises(UserError, match="was not trained"):
        train(config.model_copy(update={"model": untrained}))
    changed = config.model.model_copy(update={"overrides": {"structure_known": True}})
    fresh = config.model.model_copy(update={"leave_out": ("bridge",)})
    with pytest.raises(UserError, match=r"changes fusion\.0\."):
        train(config.model_copy(update={"model": fresh}))
    with pytest.raises(UserError, match=r"changes structure_known of model\.start_from"):
        train(config.model_copy(update={"model": changed}))


def test_another_base_is_refused_when_training_goes_on(finished: TrainConfig, base: Path, tmp_path: Path):
    copied, other = tmp_path / "run", tmp_path / "other"
    shutil.copytree(finished.directory, copied)
    model = DualForce.from_pretrained(base)
    with torch.no_grad():
        model.structure.head.head.bias.add_(1.0)
    model.save_pretrained(other)
    text = (copied / "config.yaml").read_text().replace(str(base), str(other))
    (copied / "config.yaml").write_text(text.replace(str(finished.directory), str(copied)))
    section = finished.model.model_copy(update={"start_from": str(other)})
    config = finished.model_copy(update={"run_dir": finished.run_dir.__class__(copied), "model": section})
    with pytest.raises(UserError, match="stands beside other weights"):
        train(config, "resume")
    with pytest.raises(UserError, match="trains with adapter"):
        train(config.model_copy(update={"adapter": config.adapter.model_copy(update={"rank": 3})}), "resume")


def test_another_models_or_a_damaged_adapter_is_one_line(finished: TrainConfig, base: Path, tmp_path: Path):
    good = finished.directory / "model" / "adapter"
    model = DualForce.from_pretrained(base)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UserError, match="was trained on another model"):
        add_adapter(model, read_adapter(good), "0" * 64)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    with pytest.raises(UserError, match="is no adapter"):
        find_adapter(base)

    def damaged(name: str, config: dict[str, Any] | None = None, weights: bytes | None = None) -> Path:
        path = shutil.copytree(good, tmp_path / name)
        told = json.loads((path / "adapter_config.json").read_text())
        if config is not None:
            (path / "adapter_config.json").write_text(json.dumps({**told, **config}))
        if weights is not None:
            (path / "adapter_model.safetensors").write_bytes(weights)
        return path

    bare = damaged("bare")
    save_file(load_file(good / "adapter_model.safetensors"), bare / "adapter_model.safetensors")
    cases = {
        "does not say which model": bare,
        "use_dora": damaged("dora", {"use_dora": True}),
        "only LoRA": damaged("kind", {"peft_type": "IA3"}),
        "is damaged": damaged("rank", {"r": None}),
        "truncated": damaged("cut", weights=(good / "adapter_model.safetensors").read_bytes()[:-9]),
    }
    for said, path in cases.items():
        with pytest.raises(UserError, match=said):
            read_adapter(path)


def test_two_processes_train_the_adapter_of_one(of_person: MakeConfig, launch: Callable[..., Any], tmp_path: Path):
    config = of_person(tmp_path / "run", optim={"steps": 2, "warmup": 1, "lr": 1e-2, "floor": 1.0})
    alone = of_person(tmp_path / "alone", optim={"steps": 2, "warmup": 1, "lr": 1e-2, "floor": 1.0})
    train(alone)
    done = launch(config, ranks=2)
    assert done.codes == [0, 0], done.said
    for one, other in zip(figures(config.directory), figures(alone.directory), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)
    found, wanted = (read_adapter(find_adapter(c.directory)) for c in (config, alone))
    assert found.layers.keys() == wanted.layers.keys()
    assert found.base_sha256 == wanted.base_sha256
