"""Wan's video VAE: equal to diffusers', causal, streaming bit-equal to whole clips, and read from either layout."""

from __future__ import annotations

import copy
import inspect
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch.utils._python_dispatch import TorchDispatchMode

from df_models.encoders import VideoVAE, load_video_vae, random_tiny_vae
from df_models.encoders.video.wan_autoencoder import WAN_MEAN, WAN_STD, Memory, WanAutoencoder
from df_models.encoders.video.wan_layers import CausalConv
from df_models.encoders.video.wan_vae import ASSETS, WEIGHTS, WanVAE
from df_models.encoders.video.wan_vae_files import ORIGINAL_WEIGHTS, new_autoencoder, write_autoencoder
from df_models.encoders.video.wan_vae_names import diffusers_name
from df_models.errors import UserError
from df_models.files import sha256_file


def narrow_wan() -> WanVAE:
    """Wan 2.1's form (no patches, no shortcuts, [1, 2, 4, 4], its statistics), eight channels wide instead of 96."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return WanVAE(new_autoencoder({"base_dim": 8}), name="narrow", sha256="", licence="")


@pytest.fixture(scope="module", params=["df-tiny", "wan"])
def vae(request) -> WanVAE:
    form = random_tiny_vae(0) if request.param == "df-tiny" else narrow_wan()
    assert isinstance(form, WanVAE)
    return form


@pytest.fixture(scope="module")
def video_BPCHW():
    return torch.rand(2, 13, 3, 24, 40, generator=torch.Generator().manual_seed(0))


def spread(a: torch.Tensor, b: torch.Tensor) -> float:
    """Greatest difference, in standard deviations of ``b``."""
    return float((a - b).abs().max() / b.std())


def statistics(vae: WanVAE) -> tuple[torch.Tensor, torch.Tensor]:
    config = vae.module.config
    mean, std = (torch.tensor(values).view(1, 1, -1, 1, 1) for values in (config.latents_mean, config.latents_std))
    return mean, std


def settings_of(vae: WanVAE) -> dict[str, Any]:
    """As diffusers takes them: lists, no tuples."""
    return json.loads(json.dumps(asdict(vae.module.config)))


@pytest.fixture(scope="module")
def theirs(vae) -> Any:
    """diffusers' class with the same weights."""
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    module = AutoencoderKLWan(**settings_of(vae)).eval().requires_grad_(False)
    module.load_state_dict(vae.module.state_dict())
    return module


def test_encode_equals_diffusers(vae, theirs, video_BPCHW):
    raw = theirs.encode((video_BPCHW * 2 - 1).transpose(1, 2)).latent_dist.mode().transpose(1, 2)
    mean, std = statistics(vae)
    ours = vae.encode(video_BPCHW)
    assert ours.shape == (2, 4, 16, 3, 5)
    assert ours.dtype == torch.float32
    assert spread(ours, (raw - mean) / std) < 1e-4


def test_decode_equals_diffusers(vae, theirs):
    latents = torch.randn(2, 4, 16, 3, 5, generator=torch.Generator().manual_seed(0))
    mean, std = statistics(vae)
    pixels = (theirs.decode((latents * std + mean).transpose(1, 2)).sample.transpose(1, 2) + 1) / 2
    ours = vae.decode(latents)
    assert ours.shape == (2, 13, 3, 24, 40)
    assert pixels.std() > 0.01 and spread(ours, pixels) < 1e-4


def test_new_weights_are_those_of_diffusers(vae, theirs):
    """So that what a seed gives, and was trained from it, stays what it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        ours = WanAutoencoder(vae.module.config).state_dict()
        torch.manual_seed(5)
        wanted = type(theirs)(**settings_of(vae)).state_dict()
    assert ours.keys() == wanted.keys()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in ours.items())


def test_several_latent_frames_at_once_are_the_same_with_gradients(vae, video_BPCHW):
    video = (video_BPCHW.transpose(1, 2) * 2 - 1).requires_grad_()
    moments = vae.module.encode_clip(video, at_once=3)
    assert spread(moments.detach(), vae.module.encode_clip(video.detach())) < 1e-4
    latents = moments.chunk(2, dim=1)[0]
    pixels = vae.module.decode_clip(latents, at_once=2)
    assert spread(pixels.detach(), vae.module.decode_clip(latents.detach())) < 1e-4
    pixels.square().mean().backward()
    assert video.grad is not None and bool((video.grad.abs().amax(dim=(0, 1, 3, 4)) > 0).all())


def test_a_pass_that_fails_leaves_the_memory_as_it_was(vae, video_BPCHW, monkeypatch):
    video, memory, other = video_BPCHW.transpose(1, 2) * 2 - 1, Memory(), Memory()
    for each in (memory, other):
        vae.module.encode_frames(video[:, :, :1], each)
    with monkeypatch.context() as patch:
        patch.setattr(vae.module.encoder.norm_out, "forward", _fail)
        with pytest.raises(RuntimeError, match="no memory left"):
            vae.module.encode_frames(video[:, :, 1:5], memory)
    found, wanted = (vae.module.encode_frames(video[:, :, 1:5], each) for each in (memory, other))
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("kind", ["encode", "decode"])
def test_a_call_that_fails_at_its_second_frame_can_be_made_again(vae, video_BPCHW, monkeypatch, kind):
    frames = video_BPCHW if kind == "encode" else vae.encode(video_BPCHW)
    sessions = [vae.encoder_session() if kind == "encode" else vae.decoder_session() for _ in range(2)]
    network = vae.module.encoder if kind == "encode" else vae.module.decoder
    forward, calls = network.norm_out.forward, []

    def second_fails(x: torch.Tensor) -> torch.Tensor:
        calls.append(x)
        return forward(x) if len(calls) == 1 else _fail(x)

    with monkeypatch.context() as patch:
        patch.setattr(network.norm_out, "forward", second_fails)
        with pytest.raises(RuntimeError, match="no memory left"):
            getattr(sessions[0], kind)(frames)
    assert len(calls) == 2
    assert torch.equal(*(getattr(session, kind)(frames) for session in sessions))


def _fail(x: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("no memory left")


@pytest.mark.parametrize("parts", [[1, 4, 4, 4], [5, 8], [9, 4], [1, 12]])
def test_encoder_sessions_are_bit_equal_to_the_whole(vae, video_BPCHW, parts):
    session = vae.encoder_session()
    pieces = [session.encode(part) for part in video_BPCHW.split(parts, dim=1)]
    assert [piece.shape[1] for piece in pieces] == [(parts[0] - 1) // 4 + 1, *(part // 4 for part in parts[1:])]
    assert torch.equal(torch.cat(pieces, dim=1), vae.encode(video_BPCHW))


@pytest.mark.parametrize("parts", [[1, 1, 1, 1], [1, 3], [3, 1], [2, 2]])
def test_decoder_sessions_are_bit_equal_to_the_whole(vae, video_BPCHW, parts):
    latents = vae.encode(video_BPCHW)
    session = vae.decoder_session()
    pieces = [session.decode(part) for part in latents.split(parts, dim=1)]
    assert [piece.shape[1] for piece in pieces] == [4 * parts[0] - 3, *(4 * part for part in parts[1:])]
    assert torch.equal(torch.cat(pieces, dim=1), vae.decode(latents))


def test_sessions_at_once_do_not_disturb_each_other(vae, video_BPCHW):
    latents, flipped = vae.encode(video_BPCHW), video_BPCHW.flip(1)
    encoders = vae.encoder_session(), vae.encoder_session()
    decoders = vae.decoder_session(), vae.decoder_session()
    encoded, decoded = ([], []), ([], [])
    for part, other, latent in zip(
        video_BPCHW.split([1, 4, 4, 4], dim=1), flipped.split([1, 4, 4, 4], dim=1), latents.split(1, dim=1)
    ):
        encoded[0].append(encoders[0].encode(part))
        decoded[0].append(decoders[0].decode(latent))
        encoded[1].append(encoders[1].encode(other))
        decoded[1].append(decoders[1].decode(-latent))
    assert torch.equal(torch.cat(encoded[0], dim=1), latents)
    assert torch.equal(torch.cat(encoded[1], dim=1), vae.encode(flipped))
    assert torch.equal(torch.cat(decoded[0], dim=1), vae.decode(latents))
    assert torch.equal(torch.cat(decoded[1], dim=1), vae.decode(-latents))


def held_bytes(session: Any) -> int:
    """Bytes of the storages that a session's caches keep alive."""
    return sum(x.untyped_storage().nbytes() for x in session._memory.held)


def test_a_session_does_not_grow(vae):
    encoder, decoder, sizes = vae.encoder_session(), vae.decoder_session(), []
    latents = encoder.encode(torch.rand(1, 1, 3, 16, 16))
    for count in (4, 4, 40, 4):
        decoder.decode(latents)
        latents = encoder.encode(torch.rand(1, count, 3, 16, 16))
        sizes.append((held_bytes(encoder), held_bytes(decoder)))
    assert sizes[1] == sizes[2] == sizes[3]
    assert min(sizes[1]) > 0


def test_the_vae_is_causal(vae, video_BPCHW):
    changed = video_BPCHW.clone()
    changed[:, 9:] = 0
    before, after = vae.encode(video_BPCHW), vae.encode(changed)
    assert torch.equal(after[:, :3], before[:, :3])
    assert not torch.equal(after[:, 3], before[:, 3])
    assert torch.equal(vae.decode(after)[:, :9], vae.decode(before)[:, :9])


def test_an_image_alone_is_the_first_latent(vae, video_BPCHW):
    assert torch.equal(vae.encode_image(video_BPCHW[:, 0]), vae.encode(video_BPCHW)[:, 0])


def test_a_batch_equals_its_members(vae, video_BPCHW):
    latents = vae.encode(video_BPCHW)
    assert spread(torch.cat([vae.encode(one) for one in video_BPCHW.split(1)]), latents) < 1e-4
    assert spread(torch.cat([vae.decode(one) for one in latents.split(1)]), vae.decode(latents)) < 1e-4


def test_bfloat16_is_close_and_comes_out_as_float32(vae, video_BPCHW):
    half = WanVAE(copy.deepcopy(vae.module), name="", sha256="", licence="").to(dtype=torch.bfloat16)
    latents = vae.encode(video_BPCHW)
    ours, pixels = half.encode(video_BPCHW), half.decode(latents)
    assert ours.dtype == pixels.dtype == torch.float32
    assert (ours - latents).std() < 0.03 * latents.std()
    assert (pixels - vae.decode(latents)).std() < 0.03 * pixels.std()


@pytest.mark.parametrize("frames", [0, 2, 12])
def test_a_length_that_would_lose_its_tail_is_refused(frames):
    with pytest.raises(UserError, match=r"1 \+ 4 n|at least one pixel frame"):
        random_tiny_vae().encode(torch.rand(1, frames, 3, 32, 32))


@pytest.mark.parametrize(("frames", "fits"), [(0, "use 4 or 8"), (1, "use 4 or 8"), (6, "use 4 or 8"), (9, "8 or 12")])
def test_a_stream_goes_on_with_four_frames_each(frames, fits):
    session = random_tiny_vae().encoder_session()
    session.encode(torch.rand(1, 1, 3, 16, 16))
    with pytest.raises(UserError, match=fits):
        session.encode(torch.rand(1, frames, 3, 16, 16))
    assert session.encode(torch.rand(1, 4, 3, 16, 16)).shape == (1, 1, 16, 2, 2)


def test_shapes_that_do_not_fit_are_refused():
    vae = random_tiny_vae()
    with pytest.raises(UserError, match="multiple of 8"):
        vae.encode(torch.rand(1, 1, 3, 20, 16))
    with pytest.raises(UserError, match=r"\[1, 1, 4, 16, 16\] holds no pixel frames"):
        vae.encode(torch.rand(1, 1, 4, 16, 16))
    with pytest.raises(UserError, match="holds no latent frames"):
        vae.decode(torch.rand(1, 16, 2, 2))
    with pytest.raises(UserError, match="at least one"):
        vae.decode(torch.rand(1, 0, 16, 2, 2))
    encoder, decoder = vae.encoder_session(), vae.decoder_session()
    encoder.encode(torch.rand(1, 1, 3, 16, 16))
    decoder.decode(torch.rand(1, 1, 16, 2, 2))
    with pytest.raises(UserError, match="another session"):
        encoder.encode(torch.rand(1, 4, 3, 16, 24))
    with pytest.raises(UserError, match="another session"):
        decoder.decode(torch.rand(2, 1, 16, 2, 2))


def test_the_embedded_vae_reconstructs_and_names_its_hash():
    vae = load_video_vae("df-tiny")
    assert isinstance(vae, VideoVAE)
    assert (vae.id, vae.licence) == ("df-tiny", "Apache-2.0")
    assert vae.sha256 == sha256_file(ASSETS / "df-tiny" / WEIGHTS)
    ramp = torch.linspace(0.2, 0.8, 64)
    image = torch.stack([ramp.expand(64, 64), ramp[:, None].expand(64, 64), torch.full((64, 64), 0.5)])
    again = vae.decode(vae.encode(image.expand(1, 5, 3, 64, 64)))
    assert (again - image).abs().mean() < 0.1


def test_latents_of_the_embedded_vae_are_normalised():
    vae = WanVAE.load("df-tiny")
    latents = vae.encode(torch.rand(1, 5, 3, 32, 32))
    mean, std = statistics(vae)
    assert (std > 0.01).all()
    torch.testing.assert_close(vae.raw_latents(latents).transpose(1, 2), latents * std + mean)
    torch.testing.assert_close(vae.normalised(vae.raw_latents(latents)), latents)


def test_the_statistics_are_wan_2_1s():
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    defaults = inspect.signature(AutoencoderKLWan.__init__).parameters
    assert list(WAN_MEAN) == defaults["latents_mean"].default
    assert list(WAN_STD) == defaults["latents_std"].default


def _residual(name: str, width: int, out_width: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        f"{name}.residual.0.gamma": (width, 1, 1, 1),
        f"{name}.residual.2.weight": (out_width, width, 3, 3, 3),
        f"{name}.residual.2.bias": (out_width,),
        f"{name}.residual.3.gamma": (out_width, 1, 1, 1),
        f"{name}.residual.6.weight": (out_width, out_width, 3, 3, 3),
        f"{name}.residual.6.bias": (out_width,),
    }
    if width != out_width:
        shapes |= {f"{name}.shortcut.weight": (out_width, width, 1, 1, 1), f"{name}.shortcut.bias": (out_width,)}
    return shapes


def _conv(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape, f"{name}.bias": (shape[0],)}


def _ends(name: str, first: tuple[int, int], middle: int, last: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    return {
        **_conv(f"{name}.conv1", *first, 3, 3, 3),
        **_residual(f"{name}.middle.0", middle, middle),
        f"{name}.middle.1.norm.gamma": (middle, 1, 1),
        **_conv(f"{name}.middle.1.to_qkv", 3 * middle, middle, 1, 1),
        **_conv(f"{name}.middle.1.proj", middle, middle, 1, 1),
        **_residual(f"{name}.middle.2", middle, middle),
        f"{name}.head.0.gamma": (last[1], 1, 1, 1),
        **_conv(f"{name}.head.2", *last, 3, 3, 3),
    }


def original_layout(dim: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of ``Wan2.1_VAE.pth`` (dim 96), written down from the classes of ``wan/modules/vae.py``."""
    two, four = 2 * dim, 4 * dim
    down, up = "encoder.downsamples", "decoder.upsamples"
    shapes = _ends("encoder", (dim, 3), four, (32, four)) | _ends("decoder", (four, 16), four, (3, dim))
    shapes |= _conv("conv1", 32, 32, 1, 1, 1) | _conv("conv2", 16, 16, 1, 1, 1)
    blocks = {0: (dim, dim), 1: (dim, dim), 3: (dim, two), 4: (two, two), 6: (two, four), 7: (four, four)}
    for index, (width, out_width) in (blocks | {9: (four, four), 10: (four, four)}).items():
        shapes |= _residual(f"{down}.{index}", width, out_width)
    for index, width in {2: dim, 5: two, 8: four}.items():
        shapes |= _conv(f"{down}.{index}.resample.1", width, width, 3, 3)
    for index, width in {5: two, 8: four}.items():
        shapes |= _conv(f"{down}.{index}.time_conv", width, width, 3, 1, 1)
    narrowing = {4: (two, four)} | dict.fromkeys((0, 1, 2, 5, 6), (four, four))
    for index, (width, out_width) in (narrowing | dict.fromkeys((8, 9, 10), (two, two))).items():
        shapes |= _residual(f"{up}.{index}", width, out_width)
    for index in (12, 13, 14):
        shapes |= _residual(f"{up}.{index}", dim, dim)
    for index, width in {3: four, 7: four, 11: two}.items():
        shapes |= _conv(f"{up}.{index}.resample.1", width // 2, width, 3, 3)
    for index in (3, 7):
        shapes |= _conv(f"{up}.{index}.time_conv", 2 * four, four, 3, 1, 1)
    return shapes


def test_the_names_of_the_original_checkpoint_map_one_to_one_onto_diffusers():
    with torch.device("meta"):
        wanted = {name: tuple(x.shape) for name, x in new_autoencoder({}).state_dict().items()}
    original = original_layout(96)
    assert len(original) == 194
    assert sum(torch.Size(shape).numel() for shape in original.values()) == 126_892_531
    assert {diffusers_name(name): shape for name, shape in original.items()} == wanted


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> tuple[WanVAE, Path]:
    """A narrow Wan 2.1 VAE, as diffusers saves it in ``model/vae`` and with the original names as Wan saves it."""
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    vae, folder = narrow_wan(), tmp_path_factory.mktemp("published")
    theirs = AutoencoderKLWan(**settings_of(vae))
    theirs.load_state_dict(vae.module.state_dict())
    theirs.save_pretrained(folder / "model" / "vae")
    tensors, original = vae.module.state_dict(), {diffusers_name(name): name for name in original_layout(8)}
    renamed = {original[name]: tensor.contiguous() for name, tensor in tensors.items()}
    (folder / "wan").mkdir()
    torch.save(renamed, folder / "wan" / ORIGINAL_WEIGHTS)
    save_file(renamed, folder / "comfy.safetensors")
    return vae, folder


@pytest.mark.parametrize(
    ("place", "file"),
    [
        ("model", f"model/vae/{WEIGHTS}"),
        ("model/vae", f"model/vae/{WEIGHTS}"),
        (f"model/vae/{WEIGHTS}", f"model/vae/{WEIGHTS}"),
        ("wan", f"wan/{ORIGINAL_WEIGHTS}"),
        (f"wan/{ORIGINAL_WEIGHTS}", f"wan/{ORIGINAL_WEIGHTS}"),
        ("comfy.safetensors", "comfy.safetensors"),
    ],
)
def test_wan_is_read_from_either_layout(published, video_BPCHW, place, file):
    vae, folder = published
    loaded = load_video_vae(f"wan:{folder / place}")
    assert (loaded.id, loaded.licence, loaded.sha256) == ("wan", "Apache-2.0", sha256_file(folder / file))
    latents = vae.encode(video_BPCHW)
    assert torch.equal(loaded.encode(video_BPCHW), latents)
    assert torch.equal(loaded.decode(latents), vae.decode(latents))


def test_a_plain_path_names_the_vae(published):
    _, folder = published
    for place in ("model/vae", f"wan/{ORIGINAL_WEIGHTS}"):
        vae = load_video_vae(str(folder / place))
        assert (vae.id, vae.licence) == (str(folder / place), "as its source states")


def test_half_precision_files_become_float32(published, tmp_path):
    _, folder = published
    tensors = torch.load(folder / "wan" / ORIGINAL_WEIGHTS, weights_only=True)
    save_file({name: tensor.half() for name, tensor in tensors.items()}, tmp_path / "half.safetensors")
    vae = WanVAE.load(str(tmp_path / "half.safetensors"))
    assert {parameter.dtype for parameter in vae.module.parameters()} == {torch.float32}


def test_a_hub_id_is_fetched_with_its_vae_folder_alone(published, monkeypatch):
    _, folder = published
    asked = []

    def fetch(hub_id, allow_patterns):
        asked.append((hub_id, set(allow_patterns)))
        return str(folder / "model")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    monkeypatch.delenv("DF_WEIGHTS", raising=False)
    assert [load_video_vae(spec).id for spec in ("wan", "some/wan")] == ["wan", "some/wan"]
    files = {"config.json", WEIGHTS, "vae/config.json", f"vae/{WEIGHTS}"}
    assert asked == [("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", files), ("some/wan", files)]


def test_a_missing_vae_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="df-tiny"):
        load_video_vae("no-such-vae")
    with pytest.raises(UserError, match="hf download Wan-AI"):
        load_video_vae(f"wan:{tmp_path / 'nowhere'}")
    (tmp_path / "config.json").write_text(json.dumps({}))
    with pytest.raises(UserError, match=f"lacks {WEIGHTS}"):
        load_video_vae(str(tmp_path))


def test_an_unreachable_hub_is_one_sentence(monkeypatch):
    def fetch(hub_id, allow_patterns):
        raise OSError("no route to host")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    with pytest.raises(UserError, match=r"some/wan cannot be fetched .* name it as some/wan:PATH"):
        load_video_vae("some/wan")


def test_damaged_weights_are_one_sentence(tmp_path):
    source = ASSETS / "df-tiny"
    (tmp_path / "config.json").write_bytes((source / "config.json").read_bytes())
    (tmp_path / WEIGHTS).write_bytes((source / WEIGHTS).read_bytes()[:5000])
    with pytest.raises(UserError, match="truncated or damaged"):
        load_video_vae(str(tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base_dim": 8}, r"'s checkpoint: .* is \["),
        ({"num_res_blocks": 2}, "is missing"),
        ({"no_such_setting": 1}, "describes no AutoencoderKLWan"),
        ({"dropout": 0.1}, "describes no AutoencoderKLWan .*dropout 0"),
        ({"temperal_downsample": [True]}, "one entry less than dim_mult"),
        ({"dim_mult": [1, 3, 4]}, "must be a multiple of"),
        ({"base_dim": -8}, "must be at least 1"),
        ({"patch_size": 1}, "must be 3, 3 for each pixel"),
        ({"latents_std": ["a"] * 16}, "describes no AutoencoderKLWan"),
        ({"latents_mean": [0.0]}, "must have z_dim entries"),
        ({"z_dim": 48}, "48 latent channels"),
    ],
)
def test_a_configuration_that_does_not_fit_is_one_sentence(tmp_path, change, message):
    source = ASSETS / "df-tiny"
    config = json.loads((source / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    (tmp_path / WEIGHTS).symlink_to(source / WEIGHTS)
    with pytest.raises(UserError, match=message):
        load_video_vae(str(tmp_path))


@pytest.mark.parametrize(("text", "message"), [("{", "is no JSON"), ("[]", "holds no settings but a list")])
def test_a_configuration_of_no_settings_is_one_sentence(tmp_path, text, message):
    (tmp_path / "config.json").write_text(text)
    (tmp_path / WEIGHTS).symlink_to(ASSETS / "df-tiny" / WEIGHTS)
    with pytest.raises(UserError, match=message):
        load_video_vae(str(tmp_path))


def test_a_foreign_file_is_one_sentence(tmp_path):
    save_file({"encoder.0.weight": torch.zeros(3)}, tmp_path / "foreign.safetensors")
    with pytest.raises(UserError, match=r"not wan's checkpoint: encoder\.conv_in\.weight is missing"):
        load_video_vae(f"wan:{tmp_path / 'foreign.safetensors'}")


def test_a_vae_of_other_latents_may_not_be_called_wan():
    with pytest.raises(UserError, match="another mean or std"):
        load_video_vae(f"wan:{ASSETS / 'df-tiny'}")


def test_what_is_written_is_read_by_diffusers_and_by_us(published, tmp_path):
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    vae, _ = published
    write_autoencoder(vae.module, tmp_path / "vae", latents_std=[2.0] * 16)
    theirs = AutoencoderKLWan.from_pretrained(tmp_path / "vae")
    assert theirs.config.latents_std == [2.0] * 16
    found = WanVAE.load(str(tmp_path / "vae"))
    assert found.module.config.latents_std == (2.0,) * 16
    for name, tensor in vae.module.state_dict().items():
        assert torch.equal(tensor, theirs.state_dict()[name]) and torch.equal(tensor, found.module.state_dict()[name])


class _Counted(TorchDispatchMode):
    """Counts oneDNN's convolutions."""

    found = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.found += func is torch.ops.aten.mkldnn_convolution.default
        return func(*args, **(kwargs or {}))


def test_onednn_computes_what_torch_does_and_leaves_other_dtypes_to_it():
    vae = WanVAE.random(3)
    video = torch.rand(1, 9, 3, 16, 16)
    with _Counted() as counted:
        latents = vae.encode(video)
    pixels = vae.decode(latents)
    convolutions = [layer for layer in vae.module.modules() if isinstance(layer, CausalConv)]
    assert counted.found >= 20
    assert all(layer.weight.is_contiguous(memory_format=torch.channels_last_3d) for layer in convolutions)
    for layer in convolutions:
        layer.by_onednn = False
    with _Counted() as counted:
        torch.testing.assert_close(vae.encode(video), latents, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(vae.decode(latents), pixels, rtol=1e-4, atol=1e-4)
    assert counted.found == 0
    for layer in convolutions:
        layer.by_onednn = True
    with _Counted() as counted:
        wide = vae.to(dtype=torch.float64).encode(video)
    assert counted.found == 0
    torch.testing.assert_close(wide, latents, rtol=1e-4, atol=1e-4)
