"""Streams decoded in one batch: each as by itself."""

from __future__ import annotations

import logging

import pytest
import torch

from df_models.encoders import random_tiny_vae
from df_models.encoders.video import together
from df_models.encoders.video.taehv import TAEHV, TaehvNet
from df_models.encoders.video.together import decode_together

TOLERANCE = 1e-5
"""Of pixels in [0, 1], float32: a batch sums in another order."""


def vae_of(kind: str):
    torch.manual_seed(0)
    return random_tiny_vae() if kind == "wan" else TAEHV(TaehvNet(), name="random", sha256="random")


def streams_of(vae, begun: tuple[int, ...]):
    """Streams that have decoded so many latent frames; the second of two samples, the others of one."""
    streams, generator = [], torch.Generator().manual_seed(1)
    for index, frames in enumerate(begun):
        streams.append(vae.decoder_session())
        for _ in range(frames):
            streams[-1].decode(torch.randn(1 + (index == 1), 1, 16, 2, 2, generator=generator))
    return streams


def latents_of(begun: tuple[int, ...], seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(1 + (index == 1), 1, 16, 2, 2, generator=generator) for index in range(len(begun))]


@pytest.mark.parametrize(("kind", "begun", "turns"), [("taehv", (2, 3, 0), 3), ("wan", (2, 3), 1)])
def test_streams_decoded_together_are_each_as_alone(kind: str, begun: tuple[int, ...], turns: int, figure, monkeypatch):
    """Two that go on, one of them of two samples, and one at its first frame: in the end all in one batch."""
    vae, batches = vae_of(kind), []
    ours, theirs = (streams_of(vae, begun) for _ in "ab")
    inner = together._together
    monkeypatch.setattr(together, "_together", lambda vae, *of: batches.append(len(of[1])) or inner(vae, *of))
    for turn in range(turns):
        latents = latents_of(begun, turn)
        wanted = [stream.decode(frames) for stream, frames in zip(theirs, latents, strict=True)]
        found = decode_together(vae, ours, latents)
        for mine, its in zip(found, wanted, strict=True):
            assert isinstance(mine, torch.Tensor) and mine.shape == its.shape
            figure(f"decoded in one batch against alone, {kind}", float((mine - its).abs().max()), TOLERANCE)
    assert batches[0] == 2 and batches[-1] == len(begun)
    for stream in ours:
        for held in stream.state().values():
            if isinstance(held, torch.Tensor):
                assert held.untyped_storage().nbytes() == held.numel() * held.element_size(), "memory of its own"


def test_one_that_fails_fails_alone(caplog, monkeypatch):
    vae, begun = vae_of("wan"), (1, 1, 1)
    streams, others = (streams_of(vae, begun) for _ in "ab")
    latents = latents_of(begun, 0)
    monkeypatch.setattr(streams[2], "decode", lambda _: 1 / 0)
    with monkeypatch.context() as broken, caplog.at_level(logging.WARNING):
        broken.setattr(together, "_together", lambda *_: 1 / 0)
        found = decode_together(vae, streams, latents)
    assert "3 streams could not be decoded" in caplog.text and isinstance(found[2], ZeroDivisionError)
    for mine, stream, frames in zip(found[:2], others[:2], latents[:2], strict=True):
        assert isinstance(mine, torch.Tensor) and torch.equal(mine, stream.decode(frames))


def test_large_states_are_not_copied(monkeypatch):
    vae, begun = vae_of("wan"), (1, 1)
    monkeypatch.setattr(together, "MOST_BYTES", 1000)
    monkeypatch.setattr(together, "_together", lambda *_: pytest.fail("they were"))
    assert all(isinstance(x, torch.Tensor) for x in decode_together(vae, streams_of(vae, begun), latents_of(begun, 0)))
