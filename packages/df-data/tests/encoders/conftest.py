"""Checkpoints of the published layouts with random weights, and the real videos and small models that a build needs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from df_data.build.config import BuildConfig
from df_data.sources.config import SourceConfig, SplitConfig

sys.path.insert(0, str(Path(__file__).parent))  # so that `device_models` can be imported, in worker processes too
TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}


@pytest.fixture
def grid_build(real_data: Path, real_weights: Path, tmp_path: Path) -> BuildConfig:
    """A build of the first 1.4 s of two sentences of GRID, one to train on and one held out, at 64 pixels."""
    pytest.importorskip("mediapipe", exc_type=ImportError)
    stages = {
        "size": 64,
        "min_seconds": 1.0,
        "segment_seconds": 1.4,
        "max_seconds": 1.4,
        "faces": {"min_face": 64, "min_seconds": 1.0},
        "quality": {"voice": {"min_share": 0.0}, "sync": {"enabled": False}},
    }
    models = {
        "face_detector": str(real_weights / "yunet_n_dynamic.onnx"),
        "face_landmarker": str(real_weights / "mediapipe_face_landmarker_v2_with_blendshapes.task"),
    }
    source = SourceConfig(
        name="grid",
        folder=str(real_data / "grid/s1"),
        pattern="bba*n.mpg",
        identity="source",
        licence="CC-BY-4.0",
        limit=2,
    )
    return BuildConfig(
        out=str(tmp_path / "set"),
        sources=(source,),
        split=SplitConfig(by="sentence", val=1, salt="b"),
        models=models,  # type: ignore[arg-type]
        stages=stages,  # type: ignore[arg-type]
        clips={"frames": 13, "stride": 20, "val_frames": 13, "references": 2},  # type: ignore[arg-type]
        workers=1,
        device="cpu",
    )


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny ones of transformers' and diffusers' layouts: ``wan``, ``hubert-large``, ``dinov2-base``, ``umt5-xxl``."""
    root = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(0)
    _write_wan(root / "wan")
    _write_hubert(root / "hubert-large")
    _write_dinov2(root / "dinov2-base")
    _write_umt5(root / "umt5-xxl")
    return root


def _write_wan(folder: Path) -> None:
    from df_models.encoders.video.wan_vae_files import new_autoencoder, write_autoencoder

    write_autoencoder(new_autoencoder({"base_dim": 8}), folder)


def _write_hubert(folder: Path) -> None:
    from transformers import HubertConfig, HubertForCTC, Wav2Vec2FeatureExtractor

    form = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True, "conv_dim": [16] * 7}
    positions = {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
    HubertForCTC(HubertConfig(**TINY, **form, **positions)).save_pretrained(folder)  # type: ignore[arg-type]
    Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True).save_pretrained(folder)


def _write_dinov2(folder: Path) -> None:
    from transformers import Dinov2Config, Dinov2Model

    sizes = {name: value for name, value in TINY.items() if name != "intermediate_size"}
    Dinov2Model(Dinov2Config(**sizes, image_size=518, patch_size=14)).save_pretrained(folder)  # type: ignore[arg-type]
    settings = {"do_normalize": True, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))


def _write_umt5(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import UMT5Config, UMT5EncoderModel

    sizes = {"vocab_size": 48, "d_model": 24, "d_kv": 4, "d_ff": 32, "num_layers": 2, "num_heads": 4}
    UMT5EncoderModel(UMT5Config(**sizes, feed_forward_proj="gated-gelu")).save_pretrained(folder / "text_encoder")
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    tokenizer = Tokenizer(models.Unigram([*pieces, *((letter, -3.0) for letter in "abcdefghijklmnopqrstuvwxyz")], 2))
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>"])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    (folder / "tokenizer").mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer" / "tokenizer.json"))


@pytest.fixture(scope="session")
def face_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LivePortrait's and DECA's as they are published, at full size: ``motion_extractor.pth``, ``deca_model.tar``."""
    from df_models.encoders.face.deca import DECA_236, ParameterEncoder
    from df_models.encoders.face.liveportrait import FILE, MotionDetector

    root = tmp_path_factory.mktemp("faces")
    motion = _random_tensors(nn.ModuleDict({"detector": MotionDetector()}), 0)
    for head, size in (("scale", 0.02), ("exp", 0.02), ("t", 0.05)):  # heads that give what trained ones would
        motion[f"detector.fc_{head}.weight"] *= size
    motion["detector.fc_scale.bias"] += 1.4
    torch.save(motion, root / FILE)
    flame = _random_tensors(ParameterEncoder(DECA_236.dim), 1)
    flame["layers.2.weight"] *= 0.05
    torch.save({"E_flame": flame, "opt": {"state": {}}, "global_step": 7}, root / "deca_model.tar")
    return root


def _random_tensors(module: nn.Module, seed: int) -> dict[str, Tensor]:
    """Return weights of a scale at which every layer matters."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, tensor in module.state_dict().items():
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith("num_batches_tracked"):
            tensors[name] = torch.tensor(1000)
        elif name.endswith("running_var"):
            tensors[name] = 1 + noise.abs()
        elif name.endswith(("bias", "beta", "running_mean")):
            tensors[name] = 0.03 * noise
        elif tensor.ndim == 1 or name.endswith("gamma"):
            tensors[name] = 1 + 0.3 * noise
        else:
            tensors[name] = 1.5 * noise / tensor[0].numel() ** 0.5
    return tensors
