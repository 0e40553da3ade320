"""Text through training: conditions, checks, and a run from stored features to a generated video."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from df_data.format.manifest import Manifest, read_manifest
from df_data.format.sample import EncoderRecord, Sample
from df_data.format.shards import SplitWriter, iter_samples, staged_shards
from df_data.reading import Batch, ShardReader
from df_infer.cli import main as df_infer
from df_models import DualForce, DualForceConfig
from df_models.encoders import random_tiny_vae
from df_models.errors import UserError
from df_models.media import write_image, write_wav
from df_models.text import PROMPT_FILE, pad_text, read_prompt
from df_train import sampling
from df_train.begin import build_model
from df_train.config import ObjectiveConfig, TrainConfig
from df_train.data.contract import check_fit
from df_train.data.dataset import look_at
from df_train.data.text import unread_text
from df_train.noising import Shown, Streams, history_config, show
from df_train.objective import Objective, predict
from df_train.run import train
from df_train.sampling import generate, validation_clips

WIDTH, ROWS = 12, 5
PROMPT = "A person is talking."
TEXT = EncoderRecord(id="umt5-xxl", sha256="0")


@pytest.fixture(scope="module")
def told(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random dataset with a prompt of five random rows in every clip."""
    root = tmp_path_factory.mktemp("told")
    text_LD = torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(0)).half()
    for split in ("train", "val"):
        encoders = {**read_manifest(dataset / split).encoders, "text": TEXT}
        writer = SplitWriter(root, split, num_shards=2, build="told", encoders=encoders)
        staged = [writer.stage(with_text(sample, encoders, text_LD)) for sample in iter_samples(dataset / split)]
        for shard in staged_shards(staged):
            writer.finish_shard(shard, staged)
        writer.finish()
    return root


def with_text(sample: Sample, encoders: dict[str, EncoderRecord], text_LD: torch.Tensor) -> Sample:
    meta = sample.meta.model_copy(update={"encoders": encoders, "prompt": PROMPT})
    return Sample(meta, {**sample.tensors, "text_features": text_LD}, sample.video)


@pytest.fixture(scope="module")
def model(tiny_model: dict[str, int], open_gates: Callable[[DualForce], None]) -> DualForce:
    """A tiny model with a text branch in both towers and open gates."""
    torch.manual_seed(0)
    built = DualForce.from_preset("quickstart", **tiny_model, text_dim=WIDTH, structure_text=True)
    open_gates(built)
    return built


@pytest.fixture
def batch(told: Path) -> Batch:
    return next(iter(ShardReader(told / "train", batch_size=6, seed=0)))


def shown_of(batch: Batch, **changes: Any) -> Shown:
    objective = ObjectiveConfig(**changes)
    clean = Streams(batch.video, batch.structure)
    return show(batch, clean, objective, history_config(objective, 0.7), None, seed=5, step=3)


def differs(one: Any, two: Any) -> bool:
    return any(not torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_text_is_dropped_clip_by_clip_and_alone(batch: Batch) -> None:
    assert batch.text is not None
    kept, dropped, some = (shown_of(batch, drop_text=share) for share in (0.0, 1.0, 0.5))
    assert kept.text is not None and dropped.text is not None and some.text is not None
    assert torch.equal(kept.text, batch.text) and not dropped.text.any()
    gone = ~some.text.flatten(1).any(dim=1)
    assert gone.any() and not gone.all() and torch.equal(some.text[~gone], batch.text[~gone])
    assert torch.equal(kept.audio, dropped.audio) and torch.equal(kept.reference_frame, dropped.reference_frame)


def test_other_conditions_are_dropped_as_in_a_dataset_without_text(batch: Batch) -> None:
    with_it, without = shown_of(batch, drop_text=0.5), shown_of(replace(batch, text=None), drop_text=0.5)
    assert without.text is None
    assert torch.equal(with_it.audio, without.audio) and torch.equal(with_it.noisy.video, without.noisy.video)


def test_the_model_sees_the_prompt_padded_to_512_rows(model: DualForce, batch: Batch, monkeypatch) -> None:
    seen: list[torch.Tensor] = []
    embed = model.video.embed_text
    monkeypatch.setattr(model.video, "embed_text", lambda text: seen.append(text) or embed(text))
    predict(model, shown_of(batch, drop_text=0.0))
    assert batch.text is not None and torch.equal(pad_text(seen[0]), pad_text(batch.text))


def test_the_prompt_changes_what_is_predicted_and_learns(model: DualForce, batch: Batch) -> None:
    assert batch.text is not None
    shown = shown_of(batch, drop_text=0.0)
    velocity = predict(model, shown)
    assert differs(velocity, predict(model, replace(shown, text=batch.text.flip(1))))
    (velocity.video.square().mean() + velocity.structure.square().mean()).backward()
    for tower in (model.video, model.structure):
        assert tower.text_embedding is not None
        gradient = tower.text_embedding[0].weight.grad  # pyright: ignore[reportAttributeAccessIssue]
        assert gradient is not None and bool(gradient.any())
    model.zero_grad()


def test_a_model_that_reads_no_text_is_shown_none(tiny_model: dict[str, int], batch: Batch) -> None:
    deaf = DualForce.from_preset("quickstart", **tiny_model)
    shown = shown_of(batch)
    assert not differs(predict(deaf, shown), predict(deaf, replace(shown, text=None)))


def test_a_batch_without_text_for_a_model_that_reads_it_is_one_line(
    model: DualForce, batch: Batch, make_config: Callable[..., TrainConfig]
) -> None:
    config = make_config(Path("run"), objective={"flame": {"weight": 0.0}})
    with pytest.raises(UserError, match="holds no text features"):
        Objective(config, model.config, None)(model, replace(batch, text=None), 0, None)


def test_dataset_and_model_must_fit(model: DualForce, told: Path, dataset: Path, tiny_model: dict[str, int]) -> None:
    reads, deaf = model.config, DualForce.from_preset("quickstart", **tiny_model).config
    with_it, without = (read_manifest(root / "train") for root in (told, dataset))
    fit(reads, with_it)
    fit(deaf, without)
    fit(deaf, with_it)
    assert unread_text(deaf, with_it) is not None and unread_text(reads, with_it) is None
    with pytest.raises(UserError, match=r"reads text \(text_dim=12\), but the dataset holds none; .*text_dim=0"):
        fit(reads, without)
    with pytest.raises(UserError, match=r"text encoder is umt5-xxl, the model is for other-xl.*text_encoder=umt5"):
        fit(replace(reads, text_encoder="other-xl"), with_it)
    with pytest.raises(UserError, match=r"features are 12 wide, the model's text_dim is 8; set model.overrides"):
        fit(replace(reads, text_dim=8), with_it)


def fit(model: DualForceConfig, manifest: Manifest) -> None:
    check_fit(model, manifest)


def test_the_first_look_tells_the_prompt(model: DualForce, told: Path, make_config: Callable[..., TrainConfig]) -> None:
    data = make_config(Path("run"), data={"root": str(told)}).data
    prompt = look_at(data, model.config).prompt
    assert prompt is not None and prompt.words == PROMPT and prompt.features_LD.shape == (ROWS, WIDTH)
    assert look_at(data, replace(model.config, text_dim=0, structure_text=False)).prompt is None


def test_validation_clips_are_generated_from_their_own_text(
    model: DualForce, told: Path, make_config: Callable[..., TrainConfig]
) -> None:
    rollout = make_config(Path("run"), rollout={"steps": 2}).rollout
    clips = validation_clips(told / "val", 1, 9, "concat")
    assert clips[0].text_LD is not None and clips[0].text_LD.shape == (ROWS, WIDTH)
    vae = random_tiny_vae()
    (one,) = generate(model, vae, clips, rollout, seed=0)
    (two,) = generate(model, vae, [replace(clips[0], text_LD=10.0 * clips[0].text_LD.flip(0))], rollout, seed=0)
    assert not np.array_equal(one, two)


def test_from_stored_text_to_a_video(
    told: Path,
    tiny_model: dict[str, int],
    make_config: Callable[..., TrainConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    overrides = {**tiny_model, "text_dim": WIDTH, "structure_text": True}
    changes = {"model": {"overrides": overrides}, "data": {"root": str(told)}, "rollout": {"steps": 2}}
    config = make_config(run, optim={"steps": 6, "warmup": 1}, **changes)
    result = train(config)
    assert result.step == 6
    losses = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert losses and np.isfinite(losses).all()
    words, features = read_prompt(run / "model" / PROMPT_FILE)
    assert words == PROMPT and features.shape == (ROWS, WIDTH)
    trained, before = DualForce.from_pretrained(run / "model").state_dict(), build_model(config).state_dict()
    for name in ("video.text_embedding.0.weight", "structure.text_embedding.0.weight"):
        assert not torch.equal(trained[name], before[name])

    write_image(tmp_path / "face.png", np.full((16, 16, 3), 99, np.uint8))
    write_wav(tmp_path / "speech.wav", np.random.default_rng(0).normal(scale=0.1, size=3200))
    monkeypatch.setattr("df_infer.pipeline.load_video_vae", lambda _: random_tiny_vae())
    files = ["--run", run, "--image", tmp_path / "face.png", "--audio", tmp_path / "speech.wav"]
    assert df_infer(["generate", *map(str, files), "--out", str(tmp_path / "o.mp4"), "--quiet", "--device", "cpu"]) == 0
    assert f"the model was told: {PROMPT}" in capsys.readouterr().out


def test_samples_during_training_use_the_text(
    told: Path,
    tiny_model: dict[str, int],
    make_config: Callable[..., TrainConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[torch.Tensor | None] = []

    def spy(*args: Any, **options: Any) -> SimpleNamespace:
        given.append(args[4])
        return SimpleNamespace(video=torch.zeros(1, 3, 16, 2, 2))

    monkeypatch.setattr(sampling, "generate_latents", spy)
    monkeypatch.setattr(sampling, "load_video_vae", lambda _: random_tiny_vae())
    monkeypatch.setattr("df_train.preflight.load_video_vae", lambda _: random_tiny_vae())
    monkeypatch.setattr("df_train.preflight.check_vae", lambda *_: None)
    config = make_config(
        tmp_path / "run",
        model={"overrides": {**tiny_model, "text_dim": WIDTH}},
        data={"root": str(told)},
        optim={"steps": 2, "warmup": 1},
        sample={"clips": 1, "frames": 9},
    )
    train(config)
    assert len(given) == 1 and given[0] is not None and given[0].shape == (1, ROWS, WIDTH)
