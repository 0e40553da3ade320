"""Frozen encoders: one protocol per role, chosen by name; nothing is silently replaced.

=========  ==============================  =====================  ==========================================
role       loader                          embedded               with weights from the Hub or a local path
=========  ==============================  =====================  ==========================================
video      :func:`load_video_vae`          ``df-tiny``            ``wan``, ``taew2_1``
audio      :func:`load_audio_encoder`      ``logmel``             ``hubert-large``, ``hubert-base``
reference  :func:`load_reference_encoder`  ``patches``            ``dinov2-base``, ..., ``clip-vit-h``
text       :func:`load_text_encoder`       (none)                 ``umt5-xxl``
motion     :func:`load_motion_extractor`   (none)                 ``liveportrait``
FLAME      :func:`load_flame_encoder`      (none)                 ``deca``, ``emoca``
lip sync   :func:`load_sync_network`       (none)                 ``syncnet_v2``
=========  ==============================  =====================  ==========================================

A name may carry where its weights lie, ``NAME:LOCATION`` (:mod:`df_models.encoders.weights`). All but the embedded
ones and LivePortrait, DECA, SyncNet and ``taew2_1`` need the extra ``df-models[encoders]``.

Face detectors (:mod:`df_models.encoders.face.face_detectors`: YuNet, RetinaFace, SCRFD) and the head pose network
(:mod:`df_models.encoders.face.head_pose`: FSA-Net) are given as files.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from df_models.encoders.base import (
    AudioEncoder,
    DecoderSession,
    EncoderSession,
    FaceEncoder,
    ReferenceEncoder,
    TextEncoder,
    VideoVAE,
)
from df_models.encoders.weights import split_spec
from df_models.errors import UserError, nearest

if TYPE_CHECKING:
    from df_models.encoders.face.syncnet import SyncNet

AUDIO_ENCODERS = {"logmel": "audio.logmel", "hubert-large": "audio.hubert", "hubert-base": "audio.hubert"}
REFERENCE_ENCODERS = {
    "patches": "image.patches",
    "dinov2-small": "image.dinov2",
    "dinov2-base": "image.dinov2",
    "dinov2-large": "image.dinov2",
    "clip-vit-b": "image.clip",
    "clip-vit-l": "image.clip",
    "clip-vit-h": "image.clip",
}
TEXT_ENCODERS = {"umt5-xxl": "text.umt5"}
MOTION_EXTRACTORS = {"liveportrait": "face.liveportrait"}
FLAME_ENCODERS = {"deca": "face.deca", "emoca": "face.deca"}
SYNC_NETWORKS = {"syncnet_v2": "face.syncnet"}
VIDEO_VAES = {"wan": "video.wan_vae", "taew2_1": "video.taehv"}
"""Modules by the names of their models; each has ``load(name, location)``."""


def load_video_vae(spec: str) -> VideoVAE:
    """Load a video VAE: ``df-tiny`` (embedded), ``wan``, ``taew2_1``, a directory in diffusers' layout, or a Hub id.

    Raises:
        UserError: it cannot be found or does not fit; the message says how to get it.
    """
    name, location = split_spec(spec)
    if name in VIDEO_VAES:
        return _load(VIDEO_VAES, "video VAE", spec)
    from df_models.encoders.video.wan_vae import WanVAE

    return WanVAE.load(spec if location is None else location)


def random_tiny_vae(seed: int = 0) -> VideoVAE:
    """Return a VAE of ``df-tiny``'s shape with random weights, for tests of code that only needs the shapes."""
    from df_models.encoders.video.wan_vae import WanVAE

    return WanVAE.random(seed)


def load_audio_encoder(spec: str) -> AudioEncoder:
    """Load an audio encoder by name.

    Raises:
        UserError: there is no such encoder, or its weights are missing or damaged.
    """
    return _load(AUDIO_ENCODERS, "audio encoder", spec)


def load_reference_encoder(spec: str) -> ReferenceEncoder:
    """Load a reference encoder by name; errors as in :func:`load_audio_encoder`."""
    return _load(REFERENCE_ENCODERS, "reference encoder", spec)


def load_text_encoder(spec: str) -> TextEncoder:
    """Load a text encoder by name; errors as in :func:`load_audio_encoder`."""
    return _load(TEXT_ENCODERS, "text encoder", spec)


def load_motion_extractor(spec: str) -> FaceEncoder:
    """Load an extractor of structure vectors by name; errors as in :func:`load_audio_encoder`."""
    return _load(MOTION_EXTRACTORS, "motion extractor", spec)


def load_flame_encoder(spec: str) -> FaceEncoder:
    """Load an encoder of FLAME vectors by name; errors as in :func:`load_audio_encoder`."""
    return _load(FLAME_ENCODERS, "FLAME encoder", spec)


def load_sync_network(spec: str) -> SyncNet:
    """Load a network that compares lips with audio by name; errors as in :func:`load_audio_encoder`."""
    return _load(SYNC_NETWORKS, "lip sync network", spec)


def _load(known: Mapping[str, str], role: str, spec: str) -> Any:
    name, location = split_spec(spec)
    if name not in known:
        raise UserError(f"no {role} is called {name!r}{nearest(name, known)}; there is {', '.join(known)}")
    return importlib.import_module(f"{__name__}.{known[name]}").load(name, location)


__all__ = [
    "AUDIO_ENCODERS",
    "FLAME_ENCODERS",
    "MOTION_EXTRACTORS",
    "REFERENCE_ENCODERS",
    "SYNC_NETWORKS",
    "TEXT_ENCODERS",
    "VIDEO_VAES",
    "AudioEncoder",
    "DecoderSession",
    "EncoderSession",
    "FaceEncoder",
    "ReferenceEncoder",
    "TextEncoder",
    "VideoVAE",
    "load_audio_encoder",
    "load_flame_encoder",
    "load_motion_extractor",
    "load_reference_encoder",
    "load_sync_network",
    "load_text_encoder",
    "load_video_vae",
    "random_tiny_vae",
]
