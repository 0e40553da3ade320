"""The plan's fallbacks, from their configurations to generation: FLAME as structure, structure as a condition, one
noise level per clip. And what a model says of its training to those who generate with it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from df_data.format.manifest import read_manifest
from df_data.format.sample import EncoderRecord
from df_data.reading import ShardReader
from df_infer.config import RolloutConfig
from df_infer.rollout import generate_latents
from df_infer.sampling.drive import Drive
from df_models import DualForce
from df_models.encoders import random_tiny_vae
from df_models.errors import UserError
from df_models.settings import load_config, merge, read_tree, validate_config
from df_models.structure import FLAME_159, FLAME_MOTION_59, flame_motion
from df_train.config import TrainConfig
from df_train.data.contract import TOLD, check_fit, decided_by
from df_train.noising import Streams
from df_train.objective import FlameScale, Objective
from df_train.preflight import preflight
from df_train.run import train
from df_train.sampling import generate, label_of, validation_clips
from df_train.validation.showing import repeated, show_held_out

MakeConfig = Callable[..., TrainConfig]
CONFIGS = Path(__file__).parents[3] / "configs" / "train"
SHORT = {
    "budget": {"minutes": None},
    "optim": {"steps": 2, "warmup": 1},
    "sample": {"clips": 1, "frames": 9},
    "validation": {"every": 2, "clips": 2},
    "rollout": {"steps": 1},
}


@pytest.fixture(scope="module", autouse=True)
def _the_vae_of_the_dataset() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module in ("preflight", "sampling"):
            patch.setattr(f"df_train.{module}.load_video_vae", lambda _: random_tiny_vae())
        yield


@pytest.fixture(scope="module")
def tiny_run(config_tree: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory):
    """Trains a configuration of the repository for two steps, its model tiny, on the random dataset."""
    root = tmp_path_factory.mktemp("runs")

    def run(name: str, **changes: Any) -> Path:
        told = config_tree(root / name)
        tree = read_tree(CONFIGS / f"{name}.yaml")
        tree["data"].pop("synth")
        tree = merge(merge(merge(tree, told), SHORT), changes)
        train(validate_config(TrainConfig, tree))
        return root / name

    return run


@pytest.fixture(scope="module")
def plain(tiny_run: Callable[..., Path]) -> Path:
    return tiny_run("quickstart")


def log_of(run: Path) -> dict[str, float]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return {name: value for line in lines for name, value in line.items()}


def inputs_of(dataset: Path, frames: int = 3) -> tuple[torch.Tensor, ...]:
    batch = next(iter(ShardReader(dataset / "train", batch_size=2, seed=0, num_frames=frames)))
    return batch.audio, batch.reference_latent, batch.reference_tokens


# -------------------- FLAME


def test_flames_motion_is_the_structure_from_the_dataset_to_generation(tiny_run: Callable[..., Path], dataset: Path):
    run = tiny_run("quickstart-flame", rollout={"structure_from": "truth"})
    model = DualForce.from_pretrained(run / "model")
    layout = model.config.structure_layout
    assert layout is not None and (layout.name, layout.encoder) == (FLAME_MOTION_59.name, "synthetic")
    assert model.config.structure_dim == 59 == layout.dim
    flames = torch.cat(
        [s.flame.flatten(0, 2) for s in ShardReader(dataset / "train", batch_size=24, seed=0, loop=False)]
    )
    torch.testing.assert_close(model.structure_mean, flame_motion(flames).mean(0), atol=0.05, rtol=0)
    torch.testing.assert_close(model.structure_std, flame_motion(flames).std(0), atol=0.05, rtol=0)
    made = generate_latents(model, *inputs_of(dataset), config=RolloutConfig(steps=1))
    assert made.structure.shape == (2, 3, 4, 59)
    clip = validation_clips(dataset / "val", 1, 9, "concat", "flame")[0]
    assert clip.structure_TSV.shape == (3, 4, 59)
    assert list((run / "samples").rglob("*.mp4")) and "val/loss" in log_of(run)


def test_the_motion_of_flame_is_all_but_its_shape_under_the_same_names():
    vector = torch.arange(159.0)
    motion = flame_motion(vector)
    for name, first in (("expression", 0), ("camera", 0), ("rotation", 0), ("jaw", 3)):
        whole = vector[FLAME_159.slice("pose" if name in ("rotation", "jaw") else name)]
        found = motion[FLAME_MOTION_59.slice(name)]
        assert torch.equal(found, whole[first : first + len(found)])
    assert len(motion) == FLAME_MOTION_59.dim == 59


def test_a_dataset_without_flame_and_a_model_of_other_structure_are_told(
    make_config: MakeConfig, tmp_path: Path, dataset: Path, plain: Path
):
    config = make_config(tmp_path / "run", data={"structure": "flame"})
    manifest = read_manifest(dataset / "train")
    real = manifest.model_copy(
        update={"encoders": {**manifest.encoders, "structure": EncoderRecord(id="liveportrait", sha256="a" * 64)}}
    )
    with pytest.raises(UserError, match="holds no FLAME vectors"):
        decided_by(config, real.model_copy(update={"structure_vectors": None}))
    model = DualForce.from_pretrained(plain / "model").config
    with pytest.raises(UserError, match=r"flame_motion59.*mean different"):
        check_fit(model, manifest, "flame")


# -------------------- a condition


def test_structure_as_a_condition_is_made_by_another_run(tiny_run: Callable[..., Path], plain: Path, dataset: Path):
    run = tiny_run("quickstart-condition", rollout={"structure_from": str(plain)})
    model = DualForce.from_pretrained(run / "model").eval()
    assert model.config.structure_given == "always"
    log = log_of(run)
    assert log["loss"] > 0 and "loss/structure" not in log, "nothing of it is learnt, and nothing is not a number"
    assert log["val/loss"] == log["val/loss/video"] > 0
    clips = validation_clips(dataset / "val", 1, 9, "concat")
    vae = random_tiny_vae()

    def made(source: str) -> Any:
        return generate(model, vae, clips, RolloutConfig(steps=1, structure_from=source), seed=0)[0]

    assert made(str(plain)).shape == made("truth").shape == (9, 16, 16, 3)
    with pytest.raises(UserError, match="makes none either"):
        made(str(run))
    with pytest.raises(UserError, match="makes none"):
        generate_latents(model, *inputs_of(dataset), config=RolloutConfig(steps=1))


def test_the_condition_is_the_other_models_structure_and_the_truth_the_clips_own(
    plain: Path, dataset: Path, open_gates: Callable[[torch.nn.Module], None], monkeypatch: pytest.MonkeyPatch
):
    maker = DualForce.from_pretrained(plain / "model").eval()
    model = DualForce(replace(maker.config, structure_given="always")).eval()
    model.load_state_dict(maker.state_dict())
    open_gates(model)
    (clip,) = validation_clips(dataset / "val", 1, 9, "concat")
    given: list[torch.Tensor] = []

    def spy(*inputs: Any, drive: Drive, **others: Any) -> Any:
        whole = drive.structure
        given.append(whole if isinstance(whole, torch.Tensor) else torch.cat(list(whole), dim=1))
        return generate_latents(*inputs, drive=Drive(given[-1]), **others)

    monkeypatch.setattr("df_train.sampling.generate_latents", spy)
    vae = random_tiny_vae()
    for source in (str(plain), "truth"):
        generate(model, vae, [clip], RolloutConfig(steps=1, structure_from=source), seed=0)
    own = validate_config(RolloutConfig, read_tree(plain / "config.yaml")["rollout"])
    inputs = clip.audio_TSD[None], clip.reference_latent[None], clip.reference_tokens[None]
    wanted = maker.denormalize_structure(generate_latents(maker, *inputs, config=own, seed=0).structure)
    wanted[:, 0] = wanted[:, 0, -1:]
    assert torch.equal(given[0], wanted) and torch.equal(given[1], clip.structure_TSV[None])


def test_a_model_of_structure_alone_makes_it_for_samples(plain: Path, dataset: Path, tmp_path: Path):
    model = DualForce.from_pretrained(plain / "model").eval()
    alone = replace(model.config, streams="structure", reference_encoder="dinov2-small")  # which it has no use for
    maker = DualForce(alone)
    maker.set_structure_statistics(model.structure_mean, model.structure_std)
    maker.save_pretrained(tmp_path / "maker")
    clips = validation_clips(dataset / "val", 1, 9, "concat")
    rollout = RolloutConfig(steps=1, structure_from=str(tmp_path / "maker"))
    assert generate(model, random_tiny_vae(), clips, rollout, seed=0)[0].shape == (9, 16, 16, 3)


def test_samples_of_a_condition_need_a_structure_and_say_whose_it_is(make_config: MakeConfig, tmp_path: Path):
    changes = {"objective": {"give_structure": 1}, "sample": {"clips": 1}}
    with pytest.raises(UserError, match=r"set rollout.structure_from to a run.*`truth`"):
        preflight(make_config(tmp_path / "run", **changes))
    preflight(make_config(tmp_path / "run", **changes, rollout={"structure_from": "truth"}))
    with pytest.raises(UserError, match=r"others is for df-eval.*`truth`"):
        preflight(make_config(tmp_path / "run", **changes, rollout={"structure_from": "others"}))
    assert "true structure" in label_of(RolloutConfig(structure_from="truth"))
    assert label_of(RolloutConfig()) == "generated"


def test_a_condition_gives_the_structure_tower_no_loss_and_the_video_its_gradient(
    make_config: MakeConfig, tiny_model: dict[str, int], dataset: Path
):
    torch.manual_seed(0)
    model = DualForce.from_preset("quickstart", **tiny_model, structure_given="always")
    config = make_config(Path("run"), objective={"give_structure": 1, "flame": {"weight": 0}})
    objective = Objective(config, model.config, FlameScale(torch.zeros(159), torch.ones(159)))
    batch = next(iter(ShardReader(dataset / "train", batch_size=4, seed=0)))
    losses = objective(model, batch, 0, None)
    structure = losses.terms["structure"]
    assert not structure.counts_BT.any() and not structure.sigma_BT.any() and losses.total > 0
    losses.total.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert not model.structure.head.head.weight.grad.any()


# -------------------- one level per clip


def test_one_level_per_clip_makes_whole_clips(tiny_run: Callable[..., Path], dataset: Path):
    run = tiny_run("quickstart-one-level", validation={"histories": ["one_level"]}, rollout={"context_noise": 0})
    model = DualForce.from_pretrained(run / "model").eval()
    assert model.config.one_level_frames == 3, "the clips' own length"
    assert list((run / "samples").rglob("*.mp4")) and "val/one_level/loss/video" in log_of(run)
    made = generate_latents(model, *inputs_of(dataset), config=RolloutConfig(steps=1, chunk=None))
    assert made.video.shape[1] == 3
    with pytest.raises(UserError, match="whole clips only"):
        generate_latents(model, *inputs_of(dataset), config=RolloutConfig(steps=1))


def test_a_run_with_one_level_refuses_to_go_frame_by_frame_before_it_begins(make_config: MakeConfig, tmp_path: Path):
    changes = {"objective": {"history": {"mode": "one_level"}}, "sample": {"clips": 1, "frames": 9}}
    with pytest.raises(UserError, match=r"rollout.chunk=null"):
        preflight(make_config(tmp_path / "run", **changes))
    longer = {**changes, "rollout": {"chunk": None}, "data": {"num_frames": 2}}
    with pytest.raises(UserError, match="at most 2 latent frames"):
        preflight(make_config(tmp_path / "run", **longer))


def test_held_out_clips_of_one_level_meet_every_bucket_in_both_streams(dataset: Path):
    batch = next(iter(ShardReader(dataset / "val", batch_size=1, seed=0)))
    passes = repeated(batch)
    sigma = show_held_out(passes, Streams(passes.video, passes.structure), "one_level").sigma
    for levels in sigma:
        assert (levels == levels[:, :1]).all()
        assert sorted((levels[:, 0] * len(levels)).int().tolist()) == list(range(len(levels)))


# -------------------- what a model says of its training


@pytest.mark.parametrize(
    ("objective", "told"),
    [
        ({}, ("never", (), 0)),
        ({"give_structure": 0.2}, ("sometimes", (), 0)),
        ({"give_structure": 1}, ("always", (), 0)),
        (
            {"give_fields": {"share": 0.3, "fields": [["pitch", "yaw"], "scale"]}},
            ("never", (("pitch", "yaw"), ("scale",)), 0),
        ),
        ({"give_fields": {"share": 0.0, "fields": ["scale"]}}, ("never", (), 0)),
        ({"history": {"mode": "one_level"}}, ("never", (), 3)),
    ],
)
def test_a_model_says_what_it_was_given(
    make_config: MakeConfig, dataset: Path, tmp_path: Path, objective: dict[str, Any], told: tuple[Any, ...]
):
    config = make_config(tmp_path / "run", objective=objective)
    found = decided_by(config, read_manifest(dataset / "train"))
    assert tuple(found[name] for name in TOLD) == told


def test_a_model_that_goes_on_says_what_it_was_given_last(make_config: MakeConfig, plain: Path, tmp_path: Path):
    assert DualForce.from_pretrained(plain / "model").config.structure_given == "never"
    config = make_config(tmp_path / "on", objective={"give_structure": 0.5}, optim={"steps": 1, "warmup": 0})
    started = config.model.model_copy(update={"start_from": str(plain / "model"), "overrides": {}})
    train(config.model_copy(update={"model": started}))
    assert DualForce.from_pretrained(tmp_path / "on" / "model").config.structure_given == "sometimes"


@pytest.mark.parametrize("name", ["flame", "condition", "one-level"])
def test_the_fallbacks_are_whole_configurations_in_two_lines_of_comment(name: str):
    path = CONFIGS / f"quickstart-{name}.yaml"
    assert load_config(TrainConfig, path).name == f"quickstart-{name}"
    assert sum(line.startswith("#") for line in path.read_text().splitlines()) == 2
