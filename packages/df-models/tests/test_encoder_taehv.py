"""The tiny autoencoder of Wan's latents: the public layout, the reference's arithmetic, causality and streaming."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from df_models.encoders import VideoVAE, load_video_vae
from df_models.encoders.video.taehv import TAEHV, TaehvNet
from df_models.errors import UserError
from df_models.files import sha256_file

MEMORY_BLOCKS = {"encoder": (4, 5, 6, 9, 10, 11, 14, 15, 16), "decoder": (3, 4, 5, 9, 10, 11, 15, 16, 17)}


def public_layout() -> dict[str, tuple[int, ...]]:
    """Names and shapes in ``taew2_1.pth``, from the layer lists of madebyollin/taehv's ``TAEHV.__init__``."""
    shapes: dict[str, tuple[int, ...]] = {}
    ends = {"encoder.0": (64, 3), "encoder.17": (16, 64), "decoder.1": (256, 16), "decoder.22": (3, 64)}
    for name, shape in ends.items():
        shapes |= {f"{name}.weight": (*shape, 3, 3), f"{name}.bias": shape[:1]}
    plain = {"encoder.3": (64, 64), "encoder.8": (64, 64), "encoder.13": (64, 64)}
    for name, shape in (plain | {"decoder.8": (128, 256), "decoder.14": (64, 128), "decoder.20": (64, 64)}).items():
        shapes[f"{name}.weight"] = (*shape, 3, 3)
    pools = {"encoder.2": (64, 128), "encoder.7": (64, 128), "encoder.12": (64, 64)}
    for name, shape in (pools | {"decoder.7": (256, 256), "decoder.13": (256, 128), "decoder.19": (128, 64)}).items():
        shapes[f"{name}.conv.weight"] = (*shape, 1, 1)
    for part, indices in MEMORY_BLOCKS.items():
        for place, index in enumerate(indices):
            width = 64 if part == "encoder" else (256, 128, 64)[place // 3]
            for conv, inputs in ((0, 2 * width), (2, width), (4, width)):
                shapes[f"{part}.{index}.conv.{conv}.weight"] = (width, inputs, 3, 3)
                shapes[f"{part}.{index}.conv.{conv}.bias"] = (width,)
    return shapes


def reference(tensors: dict[str, Tensor], part: str, x: Tensor) -> Tensor:
    """The reference's parallel mode, restated: all frames of ``[B, N, C, H, W]`` at once, memory by shifting them."""

    def conv(name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = tensors[f"{part}.{name}.weight"]
        return F.conv2d(x, weight, tensors.get(f"{part}.{name}.bias"), stride, padding=weight.shape[-1] // 2)

    def remember(index: int, x: Tensor) -> Tensor:
        frames = x.reshape(batch, -1, *x.shape[1:])
        past = F.pad(frames, (0, 0, 0, 0, 0, 0, 1, 0))[:, :-1].reshape(x.shape)
        y = F.relu(conv(f"{index}.conv.0", torch.cat([x, past], 1)))
        return F.relu(conv(f"{index}.conv.4", F.relu(conv(f"{index}.conv.2", y))) + x)

    batch, x = x.shape[0], x.flatten(0, 1)
    if part == "decoder":
        x = F.relu(conv("1", torch.tanh(x / 3) * 3))
        for first, stride in ((3, 1), (9, 2), (15, 2)):
            for index in range(first, first + 3):
                x = remember(index, x)
            x = conv(f"{first + 4}.conv", F.interpolate(x, scale_factor=2))
            x = conv(f"{first + 5}", x.reshape(-1, x.shape[1] // stride, *x.shape[2:]))
        return conv("22", F.relu(x)).unflatten(0, (batch, -1))
    x = F.relu(conv("0", x))
    for first, stride in ((2, 2), (7, 2), (12, 1)):
        x = conv(f"{first}.conv", x.reshape(-1, x.shape[1] * stride, *x.shape[2:]))
        x = conv(f"{first + 1}", x, stride=2)
        for index in range(first + 2, first + 5):
            x = remember(index, x)
    return conv("17", x).unflatten(0, (batch, -1))


@pytest.fixture(scope="module")
def vae() -> TAEHV:
    """Random weights; the last layers are stretched so that pixels and latents spread as they should."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = TaehvNet()
    tensors = net.state_dict()
    tensors["encoder.17.weight"] *= 30
    tensors["decoder.22.weight"] *= 40
    tensors["decoder.22.bias"] += 0.5
    return TAEHV(net, name="random", sha256="")


@pytest.fixture(scope="module")
def video_BPCHW() -> Tensor:
    return torch.rand(2, 13, 3, 24, 40, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def latents_BTChw() -> Tensor:
    return torch.randn(2, 4, 16, 3, 5, generator=torch.Generator().manual_seed(1))


def spread(a: Tensor, b: Tensor) -> float:
    """Greatest difference, in standard deviations of ``b``."""
    return float((a - b).abs().max() / b.std())


def test_names_and_shapes_are_those_of_the_public_checkpoint():
    with torch.device("meta"):
        net = TaehvNet()
    assert {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()} == public_layout()
    counts = [sum(parameter.numel() for parameter in part.parameters()) for part in (net.encoder, net.decoder)]
    assert (len(net.state_dict()), *counts) == (128, 1_470_928, 9_844_611)


def test_decode_equals_the_reference(vae, latents_BTChw):
    theirs = reference(vae.module.state_dict(), "decoder", latents_BTChw)[:, 3:].clamp(0, 1)
    ours = vae.decode(latents_BTChw)
    assert ours.shape == (2, 13, 3, 24, 40)
    assert 0.05 < ours.std() < 0.3
    assert spread(ours, theirs) < 1e-4


def test_encode_gives_the_last_latent_of_every_beginning_filled_up_as_the_reference_does(vae, video_BPCHW):
    ours = vae.encode(video_BPCHW)
    assert ours.shape == (2, 4, 16, 3, 5)
    for index in range(4):
        beginning = video_BPCHW[:, : 4 * index + 1]
        filled = torch.cat([beginning, beginning[:, -1:].expand(-1, 3, -1, -1, -1)], dim=1)
        theirs = reference(vae.module.state_dict(), "encoder", filled)
        assert theirs.shape[1] == index + 1
        assert spread(ours[:, index], theirs[:, -1]) < 1e-4


def test_memory_matters(vae, video_BPCHW, latents_BTChw):
    assert spread(vae.encode(video_BPCHW)[:, 1], vae.encode_image(video_BPCHW[:, 4])) > 0.1
    assert (
        spread(vae.decode(latents_BTChw)[:, 1:5], reference(vae.module.state_dict(), "decoder", latents_BTChw[:, 1:2]))
        > 0.1
    )


@pytest.mark.parametrize("parts", [[1, 4, 4, 4], [5, 8], [9, 4], [1, 12]])
def test_encoder_sessions_are_bit_equal_to_the_whole(vae, video_BPCHW, parts):
    session = vae.encoder_session()
    pieces = [session.encode(part) for part in video_BPCHW.split(parts, dim=1)]
    assert [piece.shape[1] for piece in pieces] == [(parts[0] - 1) // 4 + 1, *(part // 4 for part in parts[1:])]
    assert torch.equal(torch.cat(pieces, dim=1), vae.encode(video_BPCHW))


@pytest.mark.parametrize("parts", [[1, 1, 1, 1], [1, 3], [3, 1], [2, 2]])
def test_decoder_sessions_are_bit_equal_to_the_whole(vae, latents_BTChw, parts):
    session = vae.decoder_session()
    pieces = [session.decode(part) for part in latents_BTChw.split(parts, dim=1)]
    assert [piece.shape[1] for piece in pieces] == [4 * parts[0] - 3, *(4 * part for part in parts[1:])]
    assert torch.equal(torch.cat(pieces, dim=1), vae.decode(latents_BTChw))


def test_sessions_at_once_do_not_disturb_each_other(vae, video_BPCHW, latents_BTChw):
    encoders = vae.encoder_session(), vae.encoder_session()
    decoders = vae.decoder_session(), vae.decoder_session()
    encoded, decoded = ([], []), ([], [])
    for part, latent in zip(video_BPCHW.split([1, 4, 4, 4], dim=1), latents_BTChw.split(1, dim=1)):
        for index, sign in enumerate((1, -1)):
            encoded[index].append(encoders[index].encode(part if sign > 0 else 1 - part))
            decoded[index].append(decoders[index].decode(sign * latent))
    for index, sign in enumerate((1, -1)):
        video = video_BPCHW if sign > 0 else 1 - video_BPCHW
        assert torch.equal(torch.cat(encoded[index], dim=1), vae.encode(video))
        assert torch.equal(torch.cat(decoded[index], dim=1), vae.decode(sign * latents_BTChw))


def test_no_frame_sees_a_later_one(vae, video_BPCHW, latents_BTChw):
    video, latents = video_BPCHW.clone(), latents_BTChw.clone()
    video[:, 9:] = 0
    latents[:, 3:] = 0
    encoded, decoded = vae.encode(video_BPCHW), vae.decode(latents_BTChw)
    assert torch.equal(vae.encode(video)[:, :3], encoded[:, :3])
    assert not torch.equal(vae.encode(video)[:, 3], encoded[:, 3])
    assert torch.equal(vae.decode(latents)[:, :9], decoded[:, :9])
    assert not torch.equal(vae.decode(latents)[:, 9], decoded[:, 9])


def test_an_image_alone_is_the_first_latent(vae, video_BPCHW):
    assert torch.equal(vae.encode_image(video_BPCHW[:, 0]), vae.encode(video_BPCHW)[:, 0])


def held_bytes(session: Any) -> int:
    """Bytes of what a session keeps; no tensor may keep a larger storage alive."""
    tensors = [*session._memory.values(), getattr(session, "_last_B1CHW", None)]
    tensors = [tensor for tensor in tensors if tensor is not None]
    assert all(tensor.untyped_storage().nbytes() == tensor.nbytes for tensor in tensors)
    return sum(tensor.nbytes for tensor in tensors)


def test_a_session_does_not_grow(vae):
    encoder, decoder, sizes = vae.encoder_session(), vae.decoder_session(), []
    latents = encoder.encode(torch.rand(1, 1, 3, 16, 16))
    for count in (4, 4, 40, 4):
        decoder.decode(latents)
        latents = encoder.encode(torch.rand(1, count, 3, 16, 16))
        sizes.append((held_bytes(encoder), held_bytes(decoder)))
    assert sizes[0] == sizes[1] == sizes[2] == sizes[3]
    assert min(sizes[0]) > 0


def test_a_batch_equals_its_members(vae, video_BPCHW, latents_BTChw):
    encoded, decoded = vae.encode(video_BPCHW), vae.decode(latents_BTChw)
    assert spread(torch.cat([vae.encode(one) for one in video_BPCHW.split(1)]), encoded) < 1e-4
    assert spread(torch.cat([vae.decode(one) for one in latents_BTChw.split(1)]), decoded) < 1e-4


def test_bfloat16_is_close_and_comes_out_as_float32(vae, video_BPCHW, latents_BTChw):
    half = TAEHV(copy.deepcopy(vae.module), name="", sha256="").to(dtype=torch.bfloat16)
    latents, pixels = half.encode(video_BPCHW), half.decode(latents_BTChw)
    assert latents.dtype == pixels.dtype == torch.float32
    assert (latents - vae.encode(video_BPCHW)).std() < 0.03 * latents.std()
    assert (pixels - vae.decode(latents_BTChw)).std() < 0.03 * pixels.std()


def test_pixels_stay_between_0_and_1(vae):
    net = copy.deepcopy(vae.module)
    net.state_dict()["decoder.22.weight"].mul_(100)
    pixels = TAEHV(net, name="", sha256="").decode(torch.randn(1, 2, 16, 3, 5))
    assert (pixels.min(), pixels.max()) == (0, 1)


@pytest.mark.parametrize("file", ["taew2_1.pth", "taew2_1.safetensors"])
def test_a_half_precision_file_or_its_folder_is_loaded(vae, latents_BTChw, tmp_path, monkeypatch, file):
    tensors = {name: tensor.half() for name, tensor in vae.module.state_dict().items()}
    (save_file if file.endswith("safetensors") else torch.save)(tensors, tmp_path / file)
    monkeypatch.setenv("DF_WEIGHTS", str(tmp_path))
    for spec in (f"taew2_1:{tmp_path / file}", f"taew2_1:{tmp_path}", "taew2_1"):
        loaded = load_video_vae(spec)
        assert isinstance(loaded, VideoVAE) and isinstance(loaded, TAEHV)
        assert (loaded.id, loaded.licence, loaded.sha256) == ("taew2_1", "MIT", sha256_file(tmp_path / file))
        assert not any(parameter.requires_grad for parameter in loaded.module.parameters())
        assert spread(loaded.decode(latents_BTChw), vae.decode(latents_BTChw)) < 0.02


def test_missing_weights_say_where_they_are(monkeypatch, tmp_path):
    monkeypatch.delenv("DF_WEIGHTS", raising=False)
    with pytest.raises(UserError, match=r"https://github\.com/madebyollin/taehv"):
        load_video_vae("taew2_1")
    with pytest.raises(UserError, match=r"holds none of taew2_1\.safetensors, taew2_1\.pth"):
        load_video_vae(f"taew2_1:{tmp_path}")


def test_a_damaged_file_is_one_sentence(vae, tmp_path):
    torch.save(vae.module.state_dict(), tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:9000])
    with pytest.raises(UserError, match="truncated or damaged"):
        load_video_vae(f"taew2_1:{tmp_path / 'cut.pth'}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decoder.0.weight": torch.zeros(1)}, r"decoder\.0\.weight is unknown"),
        (
            {"encoder.0.weight": torch.zeros(64, 12, 3, 3)},
            r"encoder\.0\.weight is \[64, 12, 3, 3\], not \[64, 3",
        ),
        ({"decoder.22.bias": None}, r"decoder\.22\.bias is missing"),
    ],
)
def test_a_foreign_file_is_one_sentence(vae, tmp_path, change, message):
    tensors = {**vae.module.state_dict(), **change}
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match=message):
        load_video_vae(f"taew2_1:{tmp_path / 'x.safetensors'}")


def test_frames_that_do_not_fit_are_refused(vae):
    session = vae.encoder_session()
    with pytest.raises(UserError, match=r"12 pixel frames are not 1 \+ 4 n; use 9 or 13"):
        session.encode(torch.rand(1, 12, 3, 16, 16))
    session.encode(torch.rand(1, 5, 3, 16, 16))
    with pytest.raises(UserError, match=r"5 pixel frames do not continue a stream.*use 4 or 8"):
        session.encode(torch.rand(1, 5, 3, 16, 16))
    with pytest.raises(UserError, match="multiple of 8"):
        vae.encode(torch.rand(1, 1, 3, 16, 20))
    with pytest.raises(UserError, match="holds no latent frames"):
        vae.decode(torch.rand(1, 1, 48, 2, 2))
