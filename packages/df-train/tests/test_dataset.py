"""What a run takes over from its dataset, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from df_data.format.manifest import Manifest, read_manifest
from df_data.format.sample import EncoderRecord
from df_data.synth.corpus import SynthConfig
from df_models import preset_config
from df_models.encoders import random_tiny_vae
from df_models.errors import UserError
from df_train.begin import build_model
from df_train.config import TrainConfig
from df_train.data import contract as of_run
from df_train.preflight import known_manifest


@pytest.fixture
def real(dataset: Path) -> Manifest:
    """The random dataset's manifest as if it came from real videos, through a VAE of its own."""
    manifest = read_manifest(dataset / "train")
    encoders = manifest.encoders | {"video_vae": EncoderRecord(id="runs/mine/vae", sha256="random-0")}
    return manifest.model_copy(update={"crop": "yunet:1.3:-0.03", "height": 64, "width": 64, "encoders": encoders})


def test_a_model_takes_over_vae_size_and_crop_unless_told(
    real: Manifest, make_config: Callable[..., TrainConfig], tiny_model: dict[str, Any]
):
    tiny = {name: value for name, value in tiny_model.items() if name != "video_size"}
    config = make_config(Path("run"))
    bare = config.model_copy(update={"model": config.model.model_copy(update={"overrides": tiny})})
    made = build_model(bare, of_run.taken_over(real)).config
    assert (made.video_vae, made.video_size, made.face_crop) == ("runs/mine/vae", 64, "yunet:1.3:-0.03")
    told = tiny | {"video_size": 128}
    larger = config.model_copy(update={"model": config.model.model_copy(update={"overrides": told})})
    assert build_model(larger, of_run.taken_over(real)).config.video_size == 128


def test_a_vae_that_was_replaced_under_its_name_is_refused(real: Manifest):
    of_run.check_vae(random_tiny_vae(0), real)
    with pytest.raises(UserError, match="another runs/mine/vae"):
        of_run.check_vae(random_tiny_vae(1), real)


def test_a_vae_that_was_moved_is_known_by_its_hash(
    real: Manifest, monkeypatch: pytest.MonkeyPatch, tiny_model: dict[str, Any]
):
    monkeypatch.setattr(of_run, "load_video_vae", lambda name: random_tiny_vae(0 if name == "moved" else 1))
    model = preset_config("quickstart", **tiny_model)
    of_run.check_fit(replace(model, video_vae="moved"), real)
    with pytest.raises(UserError, match="video_vae encoder is runs/mine/vae"):
        of_run.check_fit(replace(model, video_vae="other"), real)


def test_a_corpus_that_was_interrupted_decides_nothing_yet(
    dataset: Path, make_config: Callable[..., TrainConfig], tmp_path: Path
):
    config = make_config(tmp_path / "run")
    train = tmp_path / "data" / "train"
    data = config.data.model_copy(update={"root": train.parent, "synth": SynthConfig()})
    config = config.model_copy(update={"data": data})
    assert known_manifest(config) is None
    whole = read_manifest(dataset / "train")
    train.mkdir(parents=True)
    assert known_manifest(config) is None
    for complete in (False, True):
        found = whole.model_copy(update={"complete": complete})
        (train / "manifest.json").write_text(found.model_dump_json())
        assert (known_manifest(config) is not None) == complete
