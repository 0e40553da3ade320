"""Frozen encoders: one protocol per role, one loader per role, chosen by name; nothing is silently replaced.

=========  ==========================================  ==============================
role       loader                                      embedded, no download
=========  ==========================================  ==============================
video      :func:`load_video_vae`                      ``df-tiny``
audio      :func:`load_audio_encoder`                  ``logmel``
reference  :func:`load_reference_encoder`              ``patches``
=========  ==========================================  ==============================

The video VAE needs the extra ``df-models[encoders]``.
"""

from __future__ import annotations

from df_models.encoders.base import AudioEncoder, DecoderSession, ReferenceEncoder, VideoVAE
from df_models.encoders.logmel import LogMel
from df_models.encoders.patches import LatentPatches
from df_models.errors import UserError, nearest

AUDIO_ENCODERS: dict[str, type[LogMel]] = {"logmel": LogMel}
REFERENCE_ENCODERS: dict[str, type[LatentPatches]] = {"patches": LatentPatches}


def load_video_vae(name_or_path: str) -> VideoVAE:
    """Load a video VAE: ``df-tiny`` (embedded), a local directory in diffusers' layout, or a Hub id.

    Raises:
        UserError: it cannot be found or does not fit; the message says how to get it.
    """
    from df_models.encoders.wan_vae import WanVAE

    return WanVAE.load(name_or_path)


def random_tiny_vae(seed: int = 0) -> VideoVAE:
    """Return a VAE of ``df-tiny``'s shape with random weights, for tests of code that only needs the shapes."""
    from df_models.encoders.wan_vae import WanVAE

    return WanVAE.random(seed)


def load_audio_encoder(name: str) -> AudioEncoder:
    """Load an audio encoder by name.

    Raises:
        UserError: there is no such encoder.
    """
    return _choose("audio encoder", AUDIO_ENCODERS, name)()


def load_reference_encoder(name: str) -> ReferenceEncoder:
    """Load a reference encoder by name.

    Raises:
        UserError: there is no such encoder.
    """
    return _choose("reference encoder", REFERENCE_ENCODERS, name)()


def _choose(role: str, known: dict, name: str):
    if name not in known:
        raise UserError(f"no {role} is called {name!r}{nearest(name, known)}; there is {', '.join(known)}")
    return known[name]


__all__ = [
    "AUDIO_ENCODERS",
    "REFERENCE_ENCODERS",
    "AudioEncoder",
    "DecoderSession",
    "LatentPatches",
    "LogMel",
    "ReferenceEncoder",
    "VideoVAE",
    "load_audio_encoder",
    "load_reference_encoder",
    "load_video_vae",
    "random_tiny_vae",
]
