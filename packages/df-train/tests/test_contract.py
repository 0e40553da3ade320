"""A model takes its encoders, widths, pooling and the meaning of its structure from the dataset, and holds to them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from df_data.format.manifest import Manifest, read_manifest, write_manifest
from df_data.format.sample import EncoderRecord
from df_data.format.shards import SplitWriter
from df_models import DualForce, DualForceConfig, preset_config
from df_models.errors import UserError
from df_models.structure import MEDIAPIPE_70, StructureLayout
from df_train.begin import build_model
from df_train.config import TrainConfig
from df_train.data.contract import audio_note, check_continued, check_fit, taken_over
from df_train.data.dataset import training_manifest
from df_train.run import train

MakeConfig = Callable[..., TrainConfig]
MEDIAPIPE = StructureLayout.of(MEDIAPIPE_70, "mediapipe", "0")


@pytest.fixture
def manifest(dataset: Path) -> Manifest:
    return read_manifest(dataset / "train")


def made(config: TrainConfig, manifest: Manifest, **overrides: Any) -> DualForceConfig:
    """The configuration of a new model, checked against the dataset."""
    model = config.model.model_copy(update={"overrides": config.model.overrides | overrides})
    told = config.model_copy(update={"model": model})
    found = build_model(told, taken_over(manifest, model.overrides)).config
    check_fit(found, manifest)
    return found


def test_the_writer_records_what_the_samples_hold(manifest: Manifest, tmp_path: Path):
    assert {role: (f.dim, f.pool) for role, f in manifest.features.items()} == {
        "audio": (64, "concat"),
        "reference": (64, None),
    }
    assert manifest.structure_vectors is not None and manifest.structure_vectors.encoder == "synthetic"
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest
    records = {"structure": EncoderRecord(id="mediapipe", sha256="0")}
    writer = SplitWriter(tmp_path / "set", "train", num_shards=1, build="x", encoders=records)
    assert writer.manifest.structure_vectors == MEDIAPIPE


def test_a_new_model_takes_everything_from_its_dataset(manifest: Manifest, make_config: MakeConfig):
    found = made(make_config(Path("run")), manifest)
    assert (found.audio_encoder, found.audio_dim, found.audio_pool) == ("logmel", 128, "concat")
    assert (found.reference_encoder, found.reference_dim) == ("patches", 64)
    assert found.structure_layout == manifest.structure_vectors and found.structure_dim == 70
    assert dict(found.encoder_hashes) == {
        role: manifest.encoders[role].sha256 for role in ("audio", "reference", "video_vae")
    }
    assert found.speech_level is None, "these clips have no audio that was measured"
    first, second = manifest.shards
    levels = (first.model_copy(update={"speech_level": -10.0}), second.model_copy(update={"speech_level": -20.0}))
    found = made(make_config(Path("run")), manifest.model_copy(update={"shards": levels}))
    mean = -(10.0 * first.count + 20.0 * second.count) / manifest.count
    assert found.speech_level == pytest.approx(mean, abs=0.01)


@pytest.mark.parametrize(
    ("overrides", "found"),
    [
        ({"audio_dim": 64}, (64, "mean")),
        ({"audio_pool": "mean"}, (64, "mean")),
        ({"audio_dim": 128}, (128, "concat")),
        ({"audio_dim": 128, "audio_pool": "concat"}, (128, "concat")),
    ],
)
def test_a_config_may_choose_the_pooling(
    manifest: Manifest, make_config: MakeConfig, overrides: dict[str, Any], found: tuple[int, str]
):
    model = made(make_config(Path("run")), manifest, **overrides)
    assert (model.audio_dim, model.audio_pool) == found


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"audio_dim": 65}, "audio_dim is 64 with audio_pool=mean and 128 with concat, not 65 with concat"),
        ({"audio_dim": 64, "audio_pool": "concat"}, "not 64 with concat"),
        ({"audio_encoder": "hubert-large"}, "audio encoder is logmel, the model is for hubert-large"),
        ({"reference_dim": 32}, "reference features are 64 wide, the model's reference_dim is 32"),
        ({"structure_dim": 6}, "structure_dim=6, but the structure vectors are synthetic's"),
    ],
)
def test_what_a_config_states_must_agree(
    manifest: Manifest, make_config: MakeConfig, overrides: dict[str, Any], message: str
):
    with pytest.raises(UserError, match=message):
        made(make_config(Path("run")), manifest, **overrides)


def test_a_preset_for_other_encoders_takes_the_dataset_s(manifest: Manifest, tiny_model: dict[str, Any]):
    model = DualForceConfig.from_dict({**vars(preset_config("poc")), **tiny_model, **taken_over(manifest, tiny_model)})
    check_fit(model, manifest)
    assert (model.audio_encoder, model.audio_dim, model.audio_pool) == ("logmel", 128, "concat")


def of_mediapipe(root: Path, dataset: Path) -> Path:
    """The same clips, labelled as MediaPipe's."""
    shutil.copytree(dataset, root)
    for split in ("train", "val"):
        manifest = read_manifest(root / split)
        write_manifest(root / split, manifest.model_copy(update={"structure_vectors": MEDIAPIPE}))
    return root


def test_a_trained_model_refuses_other_structure_vectors(
    dataset: Path, make_config: MakeConfig, tmp_path: Path, tiny_model: dict[str, Any]
):
    """Starting from it and resuming it alike: the loss would be that of other numbers (4310 in place of 2)."""
    short = {"optim": {"steps": 4, "warmup": 1}, "checkpoint": {"every": 2}}
    config = make_config(tmp_path / "run", **short)
    train(config)
    kept = DualForce.from_pretrained(tmp_path / "run" / "model").config
    assert kept.structure_layout == read_manifest(dataset / "train").structure_vectors

    other = {"root": str(of_mediapipe(tmp_path / "data", dataset))}
    both = r"synthetic's \(sha256 .*mediapipe's \(sha256 "
    start = {"preset": "quickstart", "start_from": str(tmp_path / "run" / "model"), "overrides": {}}
    with pytest.raises(UserError, match=f"the model are {both}"):
        train(make_config(tmp_path / "next", data=other, model=start, **short))
    assert not (tmp_path / "next").exists(), "refused before anything is written"

    longer = {**short, "optim": {"steps": 6, "warmup": 1}}
    with pytest.raises(UserError, match=f"the checkpoint are {both}"):
        train(make_config(tmp_path / "run", data=other, **longer), "resume")


def test_a_trained_model_keeps_its_pooling_and_refuses_other_weights(
    manifest: Manifest, make_config: MakeConfig, tmp_path: Path
):
    config = make_config(tmp_path / "run", optim={"steps": 2, "warmup": 1}, model={"overrides": {"audio_dim": 64}})
    train(config)
    saved = {"preset": "quickstart", "start_from": str(tmp_path / "run" / "model"), "overrides": {}}
    again = config.model_copy(update={"model": type(config.model).model_validate(saved)})
    found = build_model(again, taken_over(manifest)).config
    check_fit(found, manifest)
    assert (found.audio_dim, found.audio_pool) == (64, "mean")
    records = manifest.encoders | {"audio": EncoderRecord(id="logmel", sha256="f" * 64)}
    with pytest.raises(UserError, match="audio features were made by another logmel"):
        check_fit(found, manifest.model_copy(update={"encoders": records}))
    vae = manifest.encoders | {"video_vae": EncoderRecord(id="df-tiny", sha256="f" * 64)}
    with pytest.raises(UserError, match="latents were made by another df-tiny"):
        check_fit(found, manifest.model_copy(update={"encoders": vae}))
    # a model saved before the contract was recorded takes the dataset's word
    old = replace(found, structure_layout=None, encoder_hashes=())
    check_fit(old, manifest)


def test_a_checkpoint_is_not_continued_as_another_model(manifest: Manifest, make_config: MakeConfig):
    model = made(make_config(Path("run")), manifest)
    hashes = dict(model.encoder_hashes)
    check_continued(None, model)
    check_continued({**vars(model)}, model)
    with pytest.raises(UserError, match="trained with audio_pool=concat, the dataset now makes it mean"):
        check_continued({**vars(model)}, replace(model, audio_pool="mean"))
    with pytest.raises(UserError, match="trained with another video_vae"):
        check_continued({**vars(model)}, replace(model, encoder_hashes={**hashes, "video_vae": "f" * 64}))
    # a checkpoint of before the VAE's hash was kept
    known = {role: sha for role, sha in hashes.items() if role != "video_vae"}
    check_continued({**vars(model), "encoder_hashes": known}, model)


def test_a_manifest_of_before_is_completed_from_its_first_clip(
    dataset: Path, manifest: Manifest, make_config: MakeConfig, tmp_path: Path
):
    root = Path(shutil.copytree(dataset, tmp_path / "old"))
    path = root / "train" / "manifest.json"
    document = {k: v for k, v in json.loads(path.read_text()).items() if k not in ("features", "structure_vectors")}
    path.write_text(json.dumps(document))
    assert read_manifest(root / "train").features == {}
    found = training_manifest(make_config(Path("run"), data={"root": str(root)}).data)
    assert found.features == manifest.features
    assert taken_over(found) == taken_over(manifest)


def test_features_of_before_windows_were_named_are_taken_with_a_line(manifest: Manifest):
    assert audio_note(manifest) is None
    records = manifest.encoders | {"audio": EncoderRecord(id="hubert-large", sha256="0")}
    old = manifest.model_copy(update={"encoders": records})
    note = audio_note(old)
    assert note is not None and "hubert-large@4+2" in note
    assert taken_over(old)["audio_encoder"] == "hubert-large@4+2"
