"""TAEHV's ``taew2_1``: a tiny autoencoder of Wan 2.1's latents, small enough to decode live.

Sources: layers, their names and the empty first memory are those of madebyollin/taehv ``taehv.py`` (MIT). Its README
says that TAEHV "encodes / decodes exactly what diffusion models use": for Wan, the latents normalised by the VAE's
mean and std, as they are everywhere in DualForce. AhmadAFS1/SoulX-FlashHead ``benchmarks/tiny_vae_20260926`` measured
it on talking heads with the real weights: against Wan's decoder, 36 dB PSNR from normalised latents and 17 from raw.

**Decoder.** Every latent frame gives four pixel frames; the first three of the stream are dropped, so that latent
frame k gives pixel frames 4k-3 .. 4k, as Wan's decoder does.

**Encoder.** It is three pixel frames ahead: its latent frame k is made of pixel frames 4k .. 4k+3 and a memory of those
before, and stands for 4k-3 .. 4k; ``encode_video`` fills up the clip with copies of its last frame. Here every latent
frame is the last one of the clip that ends with its own pixel frame 4k, so that copies of it stand for 4k+1 .. 4k+3.
Thus no latent frame sees the future, an image alone gives the first, and a stream gives what the whole clip gives, at
the price of a second pass. By the same measurement (``convention_probe_cpu_s30.json``) the first two latent frames are
then 0.10 and 0.11 from Wan's (relative norm), no more than with the true frames 4k+1 .. 4k+3; padding three frames in
front instead, so that latent frame k is made of 4k-3 .. 4k, gives 0.62 from the second on.

Shape legend: B batch, T latent frames, P pixel frames, N frames inside a network, C channels, H, W pixels, h = H/8,
w = W/8. Latents are ``[B, T, 16, h, w]``.
"""

from __future__ import annotations

from typing import TypeAlias

import torch
from einops import rearrange
from torch import Tensor, nn

from df_models.encoders.base import DecoderState
from df_models.encoders.video.stream import IMAGE_CHANNELS, LATENT_CHANNELS, Stream, StreamedVAE
from df_models.encoders.weights import Origin, find_file, hash_files, load_strict, locate, read_tensors
from df_models.time import TEMPORAL_STRIDE

WEIGHTS = ("taew2_1.safetensors", "taew2_1.pth")
TAEW2_1 = Origin(
    name="taew2_1",
    licence="MIT",
    how_to_get="download taew2_1.pth (23 MB, MIT) from https://github.com/madebyollin/taehv; taehv.pth and other "
    "files of its form are for other latents",
    files=WEIGHTS,
)
ENCODER_WIDTH = 64
DECODER_WIDTHS = (256, 128, 64, 64)
STARTUP_FRAMES = TEMPORAL_STRIDE - 1
"""Pixel frames at the head of a decoded stream that stand for no frame of the clip."""

Memory: TypeAlias = dict[int, Tensor]
"""What each memory block (by its index) was last given, ``[B, 1, C, H, W]``; empty before a stream's first frame."""


class Clamp(nn.Module):
    """Bound latents softly to (-3, 3)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x / 3) * 3


class MemBlock(nn.Module):
    """A residual block that sees a frame and, beside it, the frame before."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            _conv(2 * width, width), nn.ReLU(), _conv(width, width), nn.ReLU(), _conv(width, width)
        )

    def forward(self, x_NCHW: Tensor, past_NCHW: Tensor) -> Tensor:
        return torch.relu(self.conv(torch.cat([x_NCHW, past_NCHW], dim=1)) + x_NCHW)


class TPool(nn.Module):
    """Merge every ``stride`` frames to one."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(width * stride, width, 1, bias=False)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.conv(rearrange(x_NCHW, "(n s) c h w -> n (s c) h w", s=self.stride))


class TGrow(nn.Module):
    """Make ``stride`` frames of every one."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(width, width * stride, 1, bias=False)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return rearrange(self.conv(x_NCHW), "n (s c) h w -> (n s) c h w", s=self.stride)


class TaehvNet(nn.Module):
    """Encoder and decoder with the parameter names of ``taew2_1.pth``: ``encoder.N...`` and ``decoder.N...``."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            _conv(IMAGE_CHANNELS, ENCODER_WIDTH),
            nn.ReLU(),
            *(layer for stride in (2, 2, 1) for layer in _down(ENCODER_WIDTH, stride)),
            _conv(ENCODER_WIDTH, LATENT_CHANNELS),
        )
        widths = zip(DECODER_WIDTHS[:-1], DECODER_WIDTHS[1:], (1, 2, 2))
        self.decoder = nn.Sequential(
            Clamp(),
            _conv(LATENT_CHANNELS, DECODER_WIDTHS[0]),
            nn.ReLU(),
            *(layer for width, next_width, stride in widths for layer in _up(width, next_width, stride)),
            nn.ReLU(),
            _conv(DECODER_WIDTHS[-1], IMAGE_CHANNELS),
        )


def _conv(channels: int, out_channels: int, *, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(channels, out_channels, 3, stride=stride, padding=1, bias=bias)


def _down(width: int, time_stride: int) -> tuple[nn.Module, ...]:
    blocks = (MemBlock(width) for _ in range(3))
    return TPool(width, time_stride), _conv(width, width, stride=2, bias=False), *blocks


def _up(width: int, next_width: int, time_stride: int) -> tuple[nn.Module, ...]:
    blocks = (MemBlock(width) for _ in range(3))
    return *blocks, nn.Upsample(scale_factor=2), TGrow(width, time_stride), _conv(width, next_width, bias=False)


def advance(layers: nn.Sequential, frames_BNCHW: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
    """Send the next frames of a stream through the encoder (four at a time) or the decoder.

    Returns:
        The frames that come out, ``[B, N', C', H', W']``, and the memory for the next call; ``memory`` is not changed.
    """
    batch, kept = frames_BNCHW.shape[0], {}
    x_NCHW = frames_BNCHW.flatten(0, 1)
    for index, layer in enumerate(layers):
        if isinstance(layer, MemBlock):
            x_BNCHW = x_NCHW.unflatten(0, (batch, -1))
            before = memory.get(index, torch.zeros_like(x_BNCHW[:, :1]))
            kept[index] = x_BNCHW[:, -1:].clone()
            x_NCHW = layer(x_NCHW, torch.cat([before, x_BNCHW[:, :-1]], dim=1).flatten(0, 1))
        else:
            x_NCHW = layer(x_NCHW)
    return x_NCHW.unflatten(0, (batch, -1)), kept


class TAEHV(StreamedVAE):
    """The frozen tiny autoencoder: see :class:`df_models.encoders.base.VideoVAE` for the protocol."""

    def __init__(self, net: TaehvNet, *, name: str, sha256: str) -> None:
        self.id, self.sha256, self.licence = name, sha256, TAEW2_1.licence
        self.module = net.eval().requires_grad_(False)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> TAEHV:
        """Move the weights to a device or dtype; latents and pixels stay float32 outside."""
        nn.Module.to(self.module, device=device, dtype=dtype)
        return self

    def encoder_session(self) -> TaehvEncoderSession:
        """Start encoding a stream; sessions are independent of each other."""
        return TaehvEncoderSession(self)

    def decoder_session(self) -> TaehvDecoderSession:
        """Start decoding a stream; sessions are independent of each other."""
        return TaehvDecoderSession(self)

    def cast(self, x: Tensor) -> Tensor:
        """Move a tensor to the module's device and dtype."""
        parameter = next(self.module.parameters())
        return x.to(device=parameter.device, dtype=parameter.dtype)


class TaehvEncoderSession:
    """One stream through the encoder. It keeps the last pixel frame, and the memory of the frames before it."""

    def __init__(self, vae: TAEHV) -> None:
        self._vae, self._stream = vae, Stream()
        self._memory: Memory = {}
        self._last_B1CHW: Tensor | None = None

    @torch.no_grad()
    def encode(self, video_BPCHW: Tensor) -> Tensor:
        """Encode the next pixel frames: 1 + 4 n at first, then 4 n; a latent frame for the first and every 4 more.

        Raises:
            UserError: another number of frames, a size that is no multiple of 8, or another than the stream's.
        """
        groups = self._stream.split_pixels(video_BPCHW)
        return torch.cat([self._encode_group(self._vae.cast(group)) for group in groups], dim=1).float()

    def _encode_group(self, frames_BNCHW: Tensor) -> Tensor:
        encoder = self._vae.module.encoder
        if self._last_B1CHW is not None:
            true_frames = torch.cat([self._last_B1CHW, frames_BNCHW[:, :-1]], dim=1)
            _, self._memory = advance(encoder, true_frames, self._memory)
        self._last_B1CHW = frames_BNCHW[:, -1:].clone()
        held_frames = self._last_B1CHW.expand(-1, TEMPORAL_STRIDE, -1, -1, -1)
        latent_B1Chw, _ = advance(encoder, held_frames, self._memory)
        return latent_B1Chw


class TaehvDecoderSession:
    """One stream through the decoder. Its memory has a fixed size, however long the stream is."""

    def __init__(self, vae: TAEHV) -> None:
        self._vae, self._stream = vae, Stream()
        self._memory: Memory = {}

    @torch.no_grad()
    def decode(self, latents_BTChw: Tensor) -> Tensor:
        """Decode the next latent frames; the first of the stream gives 1 pixel frame, any other gives 4.

        Raises:
            UserError: there is none, or it is of another size than the stream's.
        """
        pieces, startup = [], 0 if self._stream.started else STARTUP_FRAMES
        for frame in self._stream.split_latents(latents_BTChw):
            pixels, self._memory = advance(self._vae.module.decoder, self._vae.cast(frame), self._memory)
            pieces.append(pixels)
        return torch.cat(pieces, dim=1)[:, startup:].float().clamp(0, 1)

    def state(self) -> dict[str, Tensor]:
        """Return what the stream remembers: by layer, its last frame."""
        return {str(layer): frame for layer, frame in self._memory.items()}

    def restore(self, state: DecoderState) -> None:
        """Go on from a state of this stream, or of another of the same VAE."""
        self._memory = {int(layer): frame for layer, frame in state.items()}
        self._stream = Stream(started=bool(state))


def load(name: str, location: str | None) -> TAEHV:
    """Load ``taew2_1.pth`` or ``taew2_1.safetensors``, or the folder that it is in.

    Raises:
        UserError: it cannot be found, is damaged, or has other tensors.
    """
    file = find_file(TAEW2_1, locate(TAEW2_1, location), WEIGHTS)
    net = TaehvNet()
    load_strict(net, read_tensors(file), TAEW2_1, file)
    return TAEHV(net, name=name, sha256=hash_files([file]))
