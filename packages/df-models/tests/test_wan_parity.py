"""The video tower is Wan's transformer: the same function as diffusers' implementation with the same weights."""

from __future__ import annotations

import itertools
import re

import pytest
import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import nn

from df_models import DualForce, UserError, VideoDiT, VideoDiTConfig
from df_models.cli import main
from df_models.convert import export_wan, load_wan, original_names, wan_sizes
from df_models.text import pad_text

TOLERANCE = 1e-5

CONFIGS = {
    "small": {"num_attention_heads": 2, "attention_head_dim": 24, "ffn_dim": 96, "num_layers": 3, "in_channels": 16},
    "i2v channels": {"num_attention_heads": 3, "attention_head_dim": 32, "ffn_dim": 80, "num_layers": 2},
    "wan's heads": {"num_attention_heads": 2, "attention_head_dim": 128, "ffn_dim": 512, "num_layers": 4},
}
CLIPS = [(2, 5, 6, 10, 12), (1, 1, 2, 2, 1), (3, 8, 10, 4, 7)]
"""Batch, latent frames, height, width, text tokens."""


def _theirs(config, seed=0):
    """A random model whose layers keep the size of what they get, so that every branch counts and none blows up."""
    torch.manual_seed(seed)
    values = {"in_channels": 36, "out_channels": 16, "text_dim": 20, "freq_dim": 32, **config}
    model = WanTransformer3DModel(**values).eval()
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and "norm" not in name:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5 if parameter.ndim == 2 else 0.1)
        elif "bias" in name:
            nn.init.normal_(parameter, std=0.2)
        elif "norm" in name:
            nn.init.uniform_(parameter, 0.5, 1.5)
    return model


def _ours(theirs, **changes):
    config = theirs.config
    values = {
        "dim": config.num_attention_heads * config.attention_head_dim,
        "num_layers": config.num_layers,
        "num_heads": config.num_attention_heads,
        "ffn_dim": config.ffn_dim,
        "in_dim": config.in_channels,
        "text_dim": config.text_dim,
        "freq_dim": config.freq_dim,
        **changes,
    }
    return VideoDiT(VideoDiTConfig(**values)).eval()


@torch.no_grad()
def _both(theirs, ours, clip, seed=1):
    """Outputs of both at one noise level per clip, frames in the second place."""
    batch, frames, height, width, words = clip
    generator = torch.Generator().manual_seed(seed)
    video = torch.randn(batch, frames, theirs.config.in_channels, height, width, generator=generator)
    text = torch.randn(batch, words, theirs.config.text_dim, generator=generator)
    text[:, words // 2 + 1 :] = 0
    timestep = torch.randint(1, 1000, (batch,), generator=generator)
    wanted = theirs(video.transpose(1, 2), timestep=timestep, encoder_hidden_states=pad_text(text)).sample
    wanted = wanted.transpose(1, 2)
    sigma = (timestep / 1000)[:, None].expand(batch, frames)
    channels = ours.config.in_dim - video.shape[2]
    wider = torch.cat([video, torch.randn(batch, frames, channels, height, width)], dim=2)
    return ours(wider, sigma, text, causal=False), wanted


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("names", ["wan", "diffusers"])
def test_the_same_weights_give_the_same_velocity(difference, figure, config, clip, names):
    theirs = _theirs(config)
    ours = _ours(theirs)
    state = theirs.state_dict()
    if names == "wan":
        state = {wan: state[key] for wan, key in original_names(state).items()}
        assert set(state) == set(ours.state_dict())
    report = load_wan(ours, state)
    assert len(report.used) == len(state) and not report.unused and not report.missing and not report.zeroed
    found, wanted = _both(theirs, ours, clip)
    figure("video tower against diffusers' WanTransformer3DModel, fp32", difference(found, wanted), TOLERANCE)
    assert float(wanted.std()) > 0.1


def test_bfloat16_stays_as_close_as_diffusers_own(difference, figure):
    """Both implementations in bfloat16, each against float32: ours loses no more than twice theirs."""
    theirs = _theirs(CONFIGS["wan's heads"])
    ours = _ours(theirs)
    load_wan(ours, theirs.state_dict())
    exact, _ = _both(theirs, ours, CLIPS[0])
    clip = torch.randn(2, 5, 36, 6, 10, generator=torch.Generator().manual_seed(1))
    text = torch.randn(2, 12, 20, generator=torch.Generator().manual_seed(2))
    sigma = torch.tensor([0.25, 0.75])
    each = sigma[:, None].expand(2, 5)
    with torch.no_grad():
        exact = ours(clip, each, text, causal=False)
        found = ours.bfloat16()(clip.bfloat16(), each, text.bfloat16(), causal=False).float()
        theirs = theirs.bfloat16()
        args = clip.transpose(1, 2).bfloat16(), sigma * 1000, pad_text(text).bfloat16()
        their = theirs(args[0], timestep=args[1], encoder_hidden_states=args[2]).sample.transpose(1, 2).float()
    ratio = float((found - exact).norm() / (their - exact).norm())
    figure("video tower in bf16 against itself in fp32, root mean square", _rms(found, exact), 0.03)
    figure("video tower in bf16, its error over that of diffusers' in bf16", ratio, 1.5)


def _rms(found, wanted):
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("names", ["wan", "diffusers"])
def test_the_way_back_is_exact(names):
    theirs = _theirs(CONFIGS["i2v channels"])
    ours = _ours(theirs)
    load_wan(ours, theirs.state_dict())
    back = export_wan(ours, names)
    if names == "diffusers":
        again = WanTransformer3DModel.from_config(theirs.config)
        again.load_state_dict(back, strict=True)
        back = {wan: back[key] for wan, key in original_names(back).items()}
    original = theirs.state_dict()
    assert all(torch.equal(back[wan], original[key]) for wan, key in original_names(original).items())
    with pytest.raises(UserError, match="must be 'wan' or 'diffusers'"):
        export_wan(ours, "comfy")


def test_added_input_channels_change_nothing(difference):
    theirs = _theirs(CONFIGS["small"])
    ours = _ours(theirs, in_dim=36)
    report = load_wan(ours, theirs.state_dict())
    assert report.zeroed == ("patch_embedding.weight[:, 16:]",)
    found, wanted = _both(theirs, ours, CLIPS[0])
    assert difference(found, wanted) < TOLERANCE


def test_an_image_branch_that_wan_lacks_changes_nothing_at_first(difference):
    theirs = _theirs(CONFIGS["small"])
    ours = _ours(theirs, reference=True)
    report = load_wan(ours, theirs.state_dict())
    assert {name.split(".")[3] for name in report.missing} == {"k_img", "v_img", "norm_k_img"}
    assert set(report.zeroed) == {name for name in report.missing if "v_img" in name}
    video, sigma, text = torch.randn(1, 3, 16, 4, 4), torch.rand(1, 3), torch.randn(1, 5, 20)
    images = torch.randn(1, 4, ours.config.dim)
    without = ours(video, sigma, text)
    with_images = ours(video, sigma, text, reference=images)
    assert difference(with_images.detach(), without.detach()) < 1e-6
    with_images.square().sum().backward()
    assert ours.blocks[0].cross_attn.v_img.weight.grad.abs().max() > 0


def test_wans_own_image_branch_is_taken_over(difference):
    """Image-to-video Wan: 512 text tokens behind the image's, an image branch in every layer."""
    theirs = _theirs({**CONFIGS["small"], "in_channels": 36, "image_dim": 10, "added_kv_proj_dim": 48})
    ours = _ours(theirs, reference=True)
    report = load_wan(ours, theirs.state_dict())
    assert not report.missing and not report.zeroed
    assert report.unused and all("image_embedder" in name for name in report.unused)
    assert len(report.notes) == 1 and "note: img_emb projects CLIP's features" in report.summary()
    assert not load_wan(_ours(_theirs(CONFIGS["small"])), _theirs(CONFIGS["small"]).state_dict()).notes
    video, text, images = torch.randn(1, 3, 36, 4, 4), torch.randn(1, 512, 20), torch.randn(1, 6, 10)
    with torch.no_grad():
        given = {"encoder_hidden_states": text, "encoder_hidden_states_image": images}
        wanted = theirs(video.transpose(1, 2), timestep=torch.tensor([300]), **given).sample.transpose(1, 2)
        tokens = theirs.condition_embedder.image_embedder(images)
        found = ours(video, torch.full((1, 3), 0.3), text, causal=False, reference=tokens)
    assert difference(found, wanted) < TOLERANCE


@pytest.mark.parametrize(
    ("layers", "chosen"),
    [("first", (0, 1)), (2, (0, 1)), ("even", (0, 3)), ([1, 2], (1, 2)), ((3, 3), (3, 3))],
)
def test_layers_are_chosen(layers, chosen):
    theirs = _theirs(CONFIGS["wan's heads"])
    ours = _ours(theirs, num_layers=2)
    report = load_wan(ours, theirs.state_dict(), layers)
    assert report.layers == chosen
    for place, source in enumerate(chosen):
        weights = theirs.blocks[source].ffn.net[2].weight
        assert torch.equal(ours.blocks[place].ffn[2].weight, weights)
    left = {int(re.match(r"blocks\.(\d+)", name)[1]) for name in report.unused}
    assert left == set(range(4)) - set(chosen)


def test_thirty_layers_go_evenly_into_twenty():
    from df_models.convert import choose_layers

    chosen = choose_layers("even", 30, 20)
    assert chosen[0] == 0 and chosen[-1] == 29 and len(set(chosen)) == 20
    assert {b - a for a, b in itertools.pairwise(chosen)} == {1, 2}
    assert choose_layers("even", 30, 1) == (0,)


def test_bfloat16_and_prefixed_weights_are_taken():
    theirs = _theirs(CONFIGS["small"])
    state = {wan: theirs.state_dict()[key].bfloat16() for wan, key in original_names(theirs.state_dict()).items()}
    ours = _ours(theirs)
    report = load_wan(ours, {f"model.diffusion_model.{name}": tensor for name, tensor in state.items()})
    assert len(report.used) == len(state) and all(name.startswith("model.diffusion_model.") for name in report.used)
    assert ours.blocks[1].ffn[0].weight.dtype == torch.float32
    assert torch.equal(ours.blocks[1].ffn[0].weight.bfloat16(), state["blocks.1.ffn.0.weight"])


def _float8(state, weight_scale, *, rows=False, marker=True):
    """Weights as fp8_scaled files hold them: each over its largest magnitude, that beside it."""
    packed = {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)} if marker else {}
    for name, tensor in state.items():
        if name.startswith("blocks.") and tensor.ndim == 2 and name.endswith("weight"):
            scale = (tensor.abs().amax(dim=1, keepdim=True) if rows else tensor.abs().max()) / 448
            packed[name] = (tensor / scale).to(torch.float8_e4m3fn)
            packed[name.removesuffix("weight") + weight_scale] = scale
            packed[name.removesuffix("weight") + "scale_input"] = torch.ones(1)
        else:
            packed[name] = tensor
    return packed


@pytest.mark.parametrize("weight_scale", ["scale_weight", "weight_scale"])
@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
@pytest.mark.parametrize("names", ["wan", "diffusers"])
def test_float8_weights_are_taken_with_their_scales(weight_scale, rows, prefix, names):
    theirs = _theirs(CONFIGS["small"])
    state = theirs.state_dict()
    if names == "wan":
        state = {wan: state[key] for wan, key in original_names(state).items()}
    packed = {prefix + name: tensor for name, tensor in _float8(state, weight_scale, rows=rows).items()}
    assert wan_sizes(packed) == wan_sizes(state)
    found, wanted = _ours(theirs), _ours(theirs)
    report = load_wan(found, packed)
    load_wan(wanted, state)
    assert set(report.used) == set(packed) and not report.unused and not report.missing
    assert "multiplied by their scales" in report.summary()
    for (name, ours), exact in zip(found.state_dict().items(), wanted.state_dict().values()):
        torch.testing.assert_close(ours, exact, rtol=1 / 16, atol=float(exact.abs().max()) / 448, msg=name)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s: s.pop("blocks.1.ffn.0.scale_weight"), "blocks.1.ffn.0.weight has no scale"),
        (lambda s: [s.pop(name) for name in list(s) if name.endswith("scale_weight")], "has no scale in a checkpoint"),
        (lambda s: s.update({"blocks.0.ffn.0.scale_weight": torch.ones(3, 2)}), "not one number or one per row"),
        (lambda s: s.update({"blocks.0.ffn.0.scale_weight": torch.tensor(float("nan"))}), "not positive and finite"),
        (lambda s: s.update({"blocks.0.ffn.9.scale_weight": torch.ones(1)}), "a scale for blocks.0.ffn.9.weight but"),
    ],
)
def test_float8_weights_whose_scales_do_not_fit_are_refused(damage, message):
    theirs = _theirs(CONFIGS["small"])
    state = {wan: theirs.state_dict()[key] for wan, key in original_names(theirs.state_dict()).items()}
    packed = _float8(state, "scale_weight")
    damage(packed)
    ours = _ours(theirs)
    before = ours.blocks[0].ffn[0].weight.clone()
    with pytest.raises(UserError, match=message):
        load_wan(ours, packed)
    assert torch.equal(ours.blocks[0].ffn[0].weight, before)


def test_float8_weights_that_were_only_cast_are_taken_as_they_are():
    theirs = _theirs(CONFIGS["small"])
    cast = {name: tensor.to(torch.float8_e4m3fn) for name, tensor in theirs.state_dict().items()}
    ours = _ours(theirs)
    load_wan(ours, cast)
    assert torch.equal(ours.blocks[0].ffn[0].weight, cast["blocks.0.ffn.net.0.proj.weight"].float())


@torch.no_grad()
def test_short_text_is_read_as_wan_reads_it_and_long_text_refused(difference):
    """diffusers' pipeline pads prompts by zero rows to 512 before the model; the tower does so itself."""
    theirs = _theirs(CONFIGS["small"])
    ours = _ours(theirs)
    load_wan(ours, theirs.state_dict())
    video, text = torch.randn(1, 2, 16, 4, 4), torch.randn(1, 9, 20)
    padded = torch.cat([text, torch.zeros(1, 503, 20)], dim=1)
    timestep = torch.tensor([400])
    wanted = theirs(video.transpose(1, 2), timestep=timestep, encoder_hidden_states=padded).sample.transpose(1, 2)
    sigma = torch.full((1, 2), 0.4)
    for given in (text, padded):
        assert difference(ours(video, sigma, given, causal=False), wanted) < TOLERANCE
    with pytest.raises(UserError, match="at most 512 tokens"):
        ours(video, sigma, torch.randn(1, 600, 20))


def _without(state, *parts):
    return {name: tensor for name, tensor in state.items() if not any(part in name for part in parts)}


@pytest.mark.parametrize(
    ("changes", "damage", "layers", "message"),
    [
        ({"ffn_dim": 64}, dict, None, r"build the tower with ffn_dim=96"),
        ({"text_dim": 24}, dict, None, r"build the tower with text_dim=20"),
        ({"dim": 96}, dict, None, r"build the tower with dim=48"),
        ({"in_dim": 4}, dict, None, r"patch_embedding.weight is \[48, 16, 1, 2, 2\] in the checkpoint"),
        ({"num_layers": 2}, dict, None, "has 3 layers and the tower 2; say which with layers='even'"),
        ({"num_layers": 4}, dict, None, "build a shallower tower"),
        ({"num_layers": 4}, dict, "even", "cannot take 4 of the checkpoint's 3 layers"),
        ({}, dict, 2, "cannot take 2 of the checkpoint's 3 layers into a tower that has 3"),
        ({}, dict, "evn", "did you mean 'even'"),
        ({}, dict, [0, 1], "2 layers are listed, but the tower has 3"),
        ({}, dict, [0, 1, 3], "layer 3 is not in the checkpoint, which has layers 0 to 2"),
        ({}, lambda s: _without(s, "blocks.1."), None, "incomplete: layer 1 of 3 is missing"),
        ({}, lambda s: _without(s, "blocks.2.attn1.to_q.bias"), None, "has no blocks.2.self_attn.q.bias"),
        ({}, lambda s: _without(s, "text_embedder"), None, "has no text_embedding.0.weight"),
        ({}, lambda s: {"model.weight": torch.zeros(2)}, None, "no Wan transformer: patch_embedding.weight is missing"),
        ({}, lambda s: {**s, "proj_out.weight": s["proj_out.weight"].char()}, None, "give unquantised weights"),
    ],
)
def test_what_does_not_fit_is_told_and_changes_nothing(changes, damage, layers, message):
    theirs = _theirs(CONFIGS["small"])
    ours = _ours(theirs, **changes)
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    with pytest.raises(UserError, match=message):
        load_wan(ours, damage(theirs.state_dict()), layers)
    assert all(torch.equal(before[name], tensor) for name, tensor in ours.state_dict().items())


def test_a_tower_without_weights_is_told():
    theirs = _theirs(CONFIGS["small"])
    with torch.device("meta"):
        ours = _ours(theirs)
    with pytest.raises(UserError, match="on the meta device"):
        load_wan(ours, theirs.state_dict())


def test_the_public_1_3b_checkpoint_fits_the_preset():
    """Its sizes (Wan2.1-T2V-1.3B's config.json) on the meta device: 20 of the 30 layers, everything has its place."""
    with torch.device("meta"):
        public = WanTransformer3DModel(num_attention_heads=12, ffn_dim=8960, num_layers=30)
        model = DualForce.from_preset("dualforce-wan")
    sizes = wan_sizes(public.state_dict())
    assert sizes == {
        "dim": 1536,
        "num_layers": 30,
        "num_heads": 12,
        "ffn_dim": 8960,
        "in_dim": 16,
        "out_dim": 16,
        "patch_size": (1, 2, 2),
        "text_dim": 4096,
        "freq_dim": 256,
        "reference": False,
    }
    ours = {name: tensor.shape for name, tensor in model.video.state_dict().items()}
    theirs = {name: public.state_dict()[key].shape for name, key in original_names(public.state_dict()).items()}
    different = {name for name in ours if name in theirs and ours[name] != theirs[name]}
    assert different == {"patch_embedding.weight"}
    assert {name.split(".")[3] for name in ours.keys() - theirs.keys()} == {"k_img", "v_img", "norm_k_img"}
    assert all(name.startswith("blocks.2") for name in theirs.keys() - ours.keys())


def _write_checkpoint(folder, sharded=False):
    theirs = _theirs(CONFIGS["small"])
    theirs.save_pretrained(folder, max_shard_size="40KB" if sharded else "10GB")
    return theirs


NARROW = ["dim=48", "num_heads=2", "ffn_dim=96", "num_layers=2", "text_dim=20", "freq_dim=32"]
REST = [f"structure_{name}" for name in ("width=32", "layers=2", "heads=2", "ffn_dim=48")]
REST += ["fusion_depth=1", "bridge_width=32", "bridge_heads=2", "audio_width=24", "audio_heads=2", "audio_dim=6"]


@pytest.mark.parametrize("sharded", [False, True])
def test_the_command_makes_a_model_that_loads(tmp_path, capsys, sharded):
    theirs = _write_checkpoint(tmp_path / "wan" / "transformer", sharded)
    files = list((tmp_path / "wan" / "transformer").glob("*.safetensors"))
    assert (len(files) > 1) is sharded
    target = tmp_path / "model"
    assert main(["convert-wan", str(tmp_path / "wan"), str(target), *NARROW, *REST]) == 0
    printed = capsys.readouterr().out
    assert (
        "layers taken: 0, 2" in printed
        and "blocks.{0-1}.cross_attn.k_img.weight" in printed
        and "blocks.{1}: 27 tensors each" in printed
    )
    model = DualForce.from_pretrained(target)
    assert torch.equal(model.video.blocks[1].ffn[2].weight, theirs.blocks[2].ffn.net[2].weight)
    assert '"source_sha256"' in (target / "conversion.json").read_text()
    assert main(["convert-wan", str(tmp_path / "wan"), str(target), *NARROW, *REST]) == 2
    assert "is there already" in capsys.readouterr().err


def test_the_command_makes_a_tower_that_loads(tmp_path, capsys, difference):
    theirs = _write_checkpoint(tmp_path / "wan")
    arguments = ["num_heads=2", "in_dim=36", "--tower"]
    assert main(["convert-wan", str(tmp_path / "wan"), str(tmp_path / "tower"), *arguments]) == 0
    tower = VideoDiT.from_pretrained(tmp_path / "tower")
    found, wanted = _both(theirs, tower, CLIPS[0])
    assert difference(found, wanted) < TOLERANCE
    with pytest.raises(UserError, match="type 'video-dit', not 'dualforce'"):
        DualForce.from_pretrained(tmp_path / "tower")


def _break_index(folder):
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text('{"weight_map": {"a": "../secret"}}')


@pytest.mark.parametrize(
    ("damage", "arguments", "message"),
    [
        (lambda folder: None, ["--layers", "0,9"], "layer 9 is not in the checkpoint"),
        (lambda folder: None, ["--layers", "1,x"], "is no number and no list"),
        (lambda folder: None, ["dims=3"], "did you mean 'dim'"),
        (lambda folder: next(folder.glob("*.safetensors")).unlink(), [], "holds neither diffusion_pytorch_model"),
        (lambda folder: next(folder.glob("*.safetensors")).write_bytes(b"12345678"), [], "truncated or damaged"),
        (_break_index, [], "unsafe name"),
    ],
)
def test_the_command_tells_mistakes_and_writes_nothing(tmp_path, capsys, damage, arguments, message):
    _write_checkpoint(tmp_path / "wan")
    damage(tmp_path / "wan")
    target = tmp_path / "model"
    assert main(["convert-wan", str(tmp_path / "wan"), str(target), *NARROW, *REST, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not target.exists()
