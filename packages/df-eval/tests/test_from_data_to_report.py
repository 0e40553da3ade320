"""Data, training, generation and evaluation with encoders of other widths and poolings than the preset's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from df_data.build.encode import Encoders, encode_images, mp4_bytes
from df_data.format.manifest import read_manifest
from df_data.format.shards import SplitWriter
from df_data.synth.clip import IDENTITIES, SynthClip, make_clip
from df_data.synth.corpus import sample_of
from df_data.synth.speech.sentences import Split
from df_eval.cli import main as df_eval
from df_infer.cli import main as df_infer
from df_models import DualForce
from df_train.cli import main as df_train

SMALL = {
    "dim": 48,
    "num_heads": 2,
    "ffn_dim": 64,
    "structure_width": 16,
    "structure_heads": 2,
    "structure_ffn_dim": 32,
    "bridge_width": 16,
    "bridge_heads": 2,
    "audio_width": 16,
    "audio_heads": 2,
}
SIZE = 32
FRAMES = {"train": 9, "val": 53}
"""What evaluation needs at least: 25 frames, and the audio of 25 later ones."""


def write_hubert(folder: Path) -> Path:
    """A HuBERT-large of the published layout in small, with random weights; 32 wide."""
    pytest.importorskip("transformers")
    from transformers import HubertConfig, HubertForCTC, Wav2Vec2FeatureExtractor

    torch.manual_seed(0)
    config = HubertConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        conv_bias=True,
        conv_dim=[16] * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
    )
    HubertForCTC(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True).save_pretrained(folder)
    return folder


class Rendered(NamedTuple):
    """A clip, and what the video VAE and the reference encoder make of it."""

    split: str
    clip: SynthClip
    images: dict[str, Tensor]
    video: bytes


@pytest.fixture(scope="module")
def rendered() -> list[Rendered]:
    """Two clips to train on and two that are held out; the VAE and the reference encoder are the embedded ones."""
    encoders = Encoders.load("df-tiny", "logmel", "patches")
    splits: tuple[Split, ...] = ("train", "train", "val", "val")
    people = [IDENTITIES[split].start + index for index, split in enumerate(splits)]
    clips = [make_clip(seed, who, FRAMES[splits[seed]], SIZE, split=splits[seed]) for seed, who in enumerate(people)]
    images = [encode_images(encoders, [clip.frames], [[0, 4]])[0] for clip in clips]
    return [
        Rendered(split, clip, tensors, mp4_bytes(clip.frames, clip.wave, lossless=True))
        for split, clip, tensors in zip(splits, clips, images, strict=True)
    ]


def write_dataset(root: Path, rendered: list[Rendered], audio: str) -> None:
    """The clips as `df-data synth` stores them, with an audio encoder's features."""
    encoders = Encoders.load("df-tiny", audio, "patches")
    for split in ("train", "val"):
        writer = SplitWriter(root, split, num_shards=1, build=audio, encoders=encoders.records())
        staged = []
        for index, (_, clip, images, video) in enumerate(r for r in rendered if r.split == split):
            features = encoders.audio.encode(clip.wave, FRAMES[split]).half()
            sample = sample_of(f"{split}-{index}", 0, clip, features, images, video, encoders)
            staged.append(writer.stage(sample))
        writer.finish_shard(0, staged)
        writer.finish()


@pytest.mark.parametrize(
    ("encoder", "stated", "found"),
    [
        ("logmel", {}, ("logmel", 128, "concat")),
        ("logmel", {"audio_dim": 64}, ("logmel", 64, "mean")),
        ("hubert-large@0.48+0.24", {}, ("hubert-large@0.48+0.24", 32, "mean")),
        ("hubert-large", {"audio_pool": "concat"}, ("hubert-large@4+2", 64, "concat")),
    ],
    ids=["logmel-concat", "logmel-mean", "hubert-mean", "hubert-concat"],
)
def test_from_data_to_report(
    tmp_path: Path,
    rendered: list[Rendered],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    encoder: str,
    stated: dict[str, Any],
    found: tuple[str, int, str],
) -> None:
    if encoder != "logmel":
        write_hubert(tmp_path / "weights" / "hubert-large")
        monkeypatch.setenv("DF_WEIGHTS", str(tmp_path / "weights"))
    write_dataset(tmp_path / "data", rendered, encoder)
    run = tmp_path / "run"
    config = {
        "name": "small",
        "run_dir": str(run),
        "device": "cpu",
        "model": {"overrides": SMALL | stated},
        "data": {"root": str(tmp_path / "data"), "batch_size": 2},
        "optim": {"steps": 2, "warmup": 1},
        "sample": {"clips": 1, "frames": 9},
        "rollout": {"steps": 1},
    }
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    assert df_train(["--config", str(tmp_path / "config.yaml")]) == 0
    model = DualForce.from_pretrained(run / "model").config
    assert (model.audio_encoder, model.audio_dim, model.audio_pool) == found
    manifest = read_manifest(tmp_path / "data" / "val")
    assert manifest.encoders["audio"].id == found[0] and model.structure_layout == manifest.structure_vectors

    samples = run / "samples"
    made = ["--image", str(samples / "face.png"), "--audio", str(samples / "speech.wav"), "--frames", "9", "--quiet"]
    out = ["--out", str(tmp_path / "out.mp4"), "--structure-out", str(tmp_path / "out.npz"), "--device", "cpu"]
    assert df_infer(["generate", "--run", str(run), *made, *out]) == 0
    assert f"+ {found[0]} " in capsys.readouterr().out, "the encoder's part of the latency is told"

    argv = [str(run), "--clips", "2", "--frames", "25", "shifts=[25]", "--quiet"]
    assert df_eval([*argv, "--out", str(tmp_path / "eval")]) == 0
    told = json.loads((tmp_path / "eval" / "metrics.json").read_text())["protocol"]
    assert told["audio_encoder"]["id"] == found[0] and told["structure_encoder"] == "synthetic"
