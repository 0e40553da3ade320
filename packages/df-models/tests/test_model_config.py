"""Every setting reaches the model, wrong ones are told, and the presets are what they were."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import asdict, fields, replace

import pytest
import torch

from df_models import DualForce, DualForceConfig, UserError, VideoDiT, VideoDiTConfig, preset_config, presets
from df_models.structure import StructureField, StructureLayout

BASE = {
    "text_dim": 12,
    "structure_text": True,
    "bridge_mask": "frame",
}

OTHER = {
    "dim": 60,
    "num_layers": 4,
    "num_heads": 4,
    "ffn_dim": 72,
    "structure_width": 40,
    "structure_layers": 4,
    "structure_heads": 4,
    "structure_ffn_dim": 56,
    "fusion_depth": 1,
    "bridge_width": 40,
    "bridge_heads": 4,
    "audio_width": 32,
    "audio_heads": 4,
    "latent_channels": 12,
    "patch_size": (1, 1, 2),
    "streams": "video",
    "structure_dim": 11,
    "structure_text": False,
    "structure_known": True,
    "text_dim": 16,
    "freq_dim": 24,
    "rope_theta": 100.0,
    "eps": 1e-2,
    "bridge_direction": "none",
    "bridge_mask": "causal",
    "audio_dim": 7,
    "audio_past": 3,
    "audio_future": 1,
    "gate_gain": 3.0,
    "reference_dim": 9,
    "reference_tokens": 6,
    "reference_width": 24,
    "flame_dim": 0,
    "flame_width": 9,
}
TRAVELS = {
    "sigma_structure_max": 0.5,
    "video_vae": "wan",
    "audio_encoder": "hubert-large",
    "reference_encoder": "dinov2-base",
    "text_encoder": "umt5-xxl:elsewhere",
    "speech_level": -15.5,
    "face_crop": "largest",
    "audio_pool": "mean",
    "structure_layout": StructureLayout("six", "somebody", "a" * 64, (StructureField("all", 10, "1"),)),
    "encoder_hashes": (("audio", "b" * 64), ("reference", "c" * 64)),
    "video_size": 128,
    "structure_given": "sometimes",
    "given_fields": (("all",),),
    "one_level_frames": 9,
}


def _shapes(model):
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("name", [field.name for field in fields(DualForceConfig)])
def test_every_setting_reaches_the_model_or_travels_with_it(build, make_clip, tmp_path, name):
    base = build(**BASE)
    if name in TRAVELS:
        needs = {"structure_known": True} if name == "given_fields" else {}
        model = DualForce(replace(base.config, **needs, **{name: TRAVELS[name]}))
        model.save_pretrained(tmp_path)
        assert getattr(DualForce.from_pretrained(tmp_path).config, name) == TRAVELS[name]
        return
    assert getattr(base.config, name) != OTHER[name]
    other = DualForce(replace(base.config, **{name: OTHER[name]})).eval()
    if _shapes(other) != _shapes(base):
        return
    other.load_state_dict(base.state_dict(), strict=True)
    clip = make_clip(base, 4)
    with torch.no_grad():
        found, wanted = other(**clip), base(**clip)
    assert not torch.allclose(found.video, wanted.video, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_layer": 3}, "did you mean 'num_layers'"),
        ({"fusion_depth": 9}, "fusion_depth=9 must lie between 0 and 2"),
        ({"num_heads": 5}, "dim=512 must be a multiple of num_heads=5"),
        ({"structure_heads": 3}, "structure_width=128 must be a multiple of structure_heads=3"),
        ({"bridge_heads": 128}, "must be even"),
        ({"bridge_direction": "bth"}, "did you mean 'both'"),
        ({"bridge_mask": "future"}, "none of frame, causal"),
        ({"audio_future": -1}, "audio_future must not be negative"),
        ({"gate_gain": 0.0}, "never opens"),
        ({"sigma_structure_max": 1.5}, r"must lie in \(0, 1\]"),
        ({"structure_text": True}, "needs a text_dim"),
        ({"patch_size": (2, 2, 2)}, "latent frames stay apart"),
        ({"dim": "wide"}, "dim must be a whole number, not 'wide'"),
    ],
)
def test_a_wrong_setting_is_told(changes, message):
    with pytest.raises(UserError, match=message):
        preset_config("quickstart", **changes)


def test_an_unknown_preset_is_told():
    with pytest.raises(UserError, match="did you mean 'quickstart'"):
        DualForce.from_preset("quickstrt")


PINNED = {
    "quickstart": (11_965_285, "60ecb5e52990"),
    "poc": (179_713_189, "7fff29ebe96c"),
    "dualforce-1.5b": (1_698_084_901, "9e811411789a"),
    "dualforce-wan": (1_222_252_581, "64ce6d597c1a"),
}


@pytest.mark.parametrize("preset", presets())
def test_parameters_and_their_names_are_pinned(preset):
    with torch.device("meta"):
        model = DualForce.from_preset(preset)
    names = json.dumps(sorted((name, list(tensor.shape)) for name, tensor in model.state_dict().items()))
    found = sum(p.numel() for p in model.parameters()), hashlib.sha256(names.encode()).hexdigest()[:12]
    assert found == PINNED[preset]


def test_the_video_tower_has_wans_names_and_size():
    """Wan 2.1 1.3B: 30 layers, text, in_dim 16 has 1 418 996 800 parameters."""
    config = VideoDiTConfig(dim=1536, num_layers=30, num_heads=12, ffn_dim=8960, in_dim=16)
    with torch.device("meta"):
        tower = VideoDiT(config)
    assert sum(p.numel() for p in tower.parameters()) == 1_418_996_800
    names = set(tower.state_dict())
    for name in (
        "patch_embedding.weight",
        "text_embedding.0.weight",
        "text_embedding.2.bias",
        "time_embedding.0.weight",
        "time_embedding.2.weight",
        "time_projection.1.weight",
        "blocks.29.self_attn.norm_q.weight",
        "blocks.0.cross_attn.norm_k.weight",
        "blocks.0.cross_attn.o.bias",
        "blocks.0.norm3.weight",
        "blocks.0.ffn.0.weight",
        "blocks.0.ffn.2.weight",
        "blocks.0.modulation",
        "head.head.weight",
        "head.modulation",
    ):
        assert name in names


def test_the_video_tower_works_alone():
    config = VideoDiTConfig(48, 2, 2, 64, in_dim=16, text_dim=12, freq_dim=16)
    assert config == VideoDiTConfig(dim=48, num_layers=2, num_heads=2, ffn_dim=64, in_dim=16, text_dim=12, freq_dim=16)
    tower = VideoDiT(config)
    video, sigma = torch.randn(2, 3, 16, 4, 6), torch.rand(2, 3)
    assert tower(video, sigma, torch.randn(2, 5, 12)).shape == video.shape
    with pytest.raises(UserError, match=r"every latent frame has its own noise level"):
        tower(video, sigma[:, 0])
    with pytest.raises(UserError, match="does not divide into patches"):
        tower(video[..., :5], sigma)
    with pytest.raises(UserError, match=r"video must be \[batch, frames, 16"):
        tower(video[:, :, :5], sigma)


def test_wrong_inputs_are_told(build, make_clip):
    model = build(reference_dim=0)
    clip = make_clip(model, 3)
    for changes, message in (
        ({"video": clip["video"][:, :, :3]}, "video must be"),
        ({"structure": clip["structure"][:, :2]}, "structure has batch and frames"),
        ({"structure": clip["structure"][..., :3]}, "structure must be"),
        ({"audio": clip["audio"][:, :2]}, "audio must be"),
        ({"sigma_structure": clip["sigma_structure"][:, :1]}, "sigma_structure must be"),
        ({"sigma_video": clip["sigma_video"] + 0.7}, r"sigma_video must lie in \[0, 1\]"),
        ({"sigma_video": clip["sigma_video"] * torch.nan}, r"sigma_video must lie in \[0, 1\]"),
        ({"sigma_structure": clip["sigma_structure"].bfloat16()}, "sigma_structure must be float32"),
        ({"reference_latent": clip["reference_latent"][:, :, :2]}, "reference_latent must be"),
        ({"reference_frame": torch.zeros(3)}, "one index per sample"),
        ({"reference_tokens": torch.zeros(2, 3, 8)}, "reference_dim=0"),
        ({"text": torch.zeros(2, 3, 8)}, "reads no text"),
    ):
        with pytest.raises(UserError, match=message):
            model(**{**clip, **changes})


def test_configuration_survives_json():
    for preset in presets():
        config = preset_config(preset)
        assert DualForceConfig.from_dict(json.loads(json.dumps(asdict(config)))) == config


def test_importing_and_building_loads_nothing_heavy():
    """Building a model loads huggingface_hub, whose mixin it has, and with it yaml; importing the package does not."""
    program = (
        "import sys, df_models, df_models.cli; "
        "assert not {'torch', 'huggingface_hub', 'yaml'} & sys.modules.keys(); "
        "m = df_models.DualForce.from_preset('quickstart', num_layers=1, structure_layers=1, fusion_depth=1); "
        "import df_models.flow, df_models.cli, df_models.model.describe; "
        "heavy = 'transformers diffusers accelerate pydantic ruamel.yaml torchvision webdataset av PIL'; "
        "print([name for name in heavy.split() if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"dim": 512.0}, "dim must be a whole number, not 512.0"),
        ({"num_layers": "4"}, "num_layers must be a whole number, not '4'"),
        ({"num_heads": None}, "num_heads must be a whole number, not None"),
        ({"fusion_depth": True}, "fusion_depth must be a whole number, not True"),
        ({"gate_gain": "10"}, "gate_gain must be a number, not '10'"),
        ({"video_vae": 3}, "video_vae must be text, not 3"),
        ({"structure_text": 1}, "structure_text must be True or False, not 1"),
        ({"dtype": "bfloat16"}, "no setting 'dtype'"),
    ],
)
def test_a_value_of_another_kind_is_told_by_its_name(setting: dict[str, object], said: str):
    with pytest.raises(UserError, match=f"{said}[^\n]*$"):
        preset_config("quickstart", **setting)


def test_no_preset_at_all_is_told():
    with pytest.raises(UserError, match="there is no preset None"):
        preset_config(None)  # pyright: ignore[reportArgumentType]
