"""Frozen encoders: one protocol per role, chosen by name; nothing is silently replaced.

The list of all of them is :mod:`df_models.encoders.registry`; the loaders by role:

- :func:`load_video_vae`, :func:`load_audio_encoder`, :func:`load_reference_encoder`, :func:`load_text_encoder`;
- :func:`load_motion_extractor` (structure vectors), :func:`load_flame_encoder`, :func:`load_sync_network`.

A name may carry where its weights lie, ``NAME:LOCATION`` (:mod:`df_models.encoders.weights`), and an audio encoder's
how much it hears at a time, ``hubert-large@4+2``. All but the embedded ones and LivePortrait, DECA, SyncNet and
``taew2_1`` need the extra ``df-models[encoders]``.

Face detectors (:mod:`df_models.encoders.face.face_detectors`: YuNet, RetinaFace, SCRFD) and the head pose network
(:mod:`df_models.encoders.face.head_pose`: FSA-Net) are given as files.
"""

from __future__ import annotations

import importlib
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
from df_models.encoders.registry import (
    CALLED,
    WINDOW_MARK,
    AudioPool,
    AudioWindow,
    EncoderEntry,
    Role,
    audio_window,
    encoder_id,
    encoder_names,
    find_entry,
)
from df_models.encoders.weights import split_spec
from df_models.errors import UserError

if TYPE_CHECKING:
    from df_models.encoders.face.syncnet import SyncNet


def load_video_vae(spec: str) -> VideoVAE:
    """Load a video VAE: ``df-tiny`` (embedded), ``wan``, ``taew2_1``, a directory in diffusers' layout, or a Hub id.

    Raises:
        UserError: it cannot be found or does not fit; the message says how to get it.
    """
    name, location = split_spec(spec)
    if name in encoder_names("video") and name != "df-tiny":
        return _load("video", spec)
    from df_models.encoders.video.wan_vae import WanVAE

    return WanVAE.load(spec if location is None else location)


def random_tiny_vae(seed: int = 0) -> VideoVAE:
    """Return a VAE of ``df-tiny``'s shape with random weights, for tests of code that only needs the shapes."""
    from df_models.encoders.video.wan_vae import WanVAE

    return WanVAE.random(seed)


def load_audio_encoder(spec: str) -> AudioEncoder:
    """Load an audio encoder by name, ``logmel`` or ``hubert-large@4+2:LOCATION``; without a window it has its own.

    Raises:
        UserError: there is no such encoder, or its weights are missing or damaged.
    """
    name, location = split_spec(spec)
    window = audio_window(name)
    module = _module(find_entry("audio", name))
    bare = name.partition(WINDOW_MARK)[0]
    return module.load(bare, location) if window is None else module.load(bare, location, window)


def load_reference_encoder(spec: str) -> ReferenceEncoder:
    """Load a reference encoder by name; errors as in :func:`load_audio_encoder`."""
    return _load("reference", spec)


def load_text_encoder(spec: str) -> TextEncoder:
    """Load a text encoder by name; errors as in :func:`load_audio_encoder`."""
    return _load("text", spec)


def load_motion_extractor(spec: str) -> FaceEncoder:
    """Load an extractor of structure vectors by name; errors as in :func:`load_audio_encoder`."""
    return _load("structure", spec)


def load_flame_encoder(spec: str) -> FaceEncoder:
    """Load an encoder of FLAME vectors by name; errors as in :func:`load_audio_encoder`."""
    return _load("flame", spec)


def load_sync_network(spec: str) -> SyncNet:
    """Load a network that compares lips with audio by name; errors as in :func:`load_audio_encoder`."""
    return _load("lip sync", spec)


def _load(role: Role, spec: str) -> Any:
    name, location = split_spec(spec)
    return _module(find_entry(role, name)).load(name, location)


def _module(entry: EncoderEntry) -> Any:
    if entry.module is None:
        raise UserError(f"the {CALLED[entry.role]} {entry.name!r} is made by df-data on the way and cannot be loaded")
    return importlib.import_module(entry.module, package=__name__)


__all__ = [
    "AudioEncoder",
    "AudioPool",
    "AudioWindow",
    "DecoderSession",
    "EncoderEntry",
    "EncoderSession",
    "FaceEncoder",
    "ReferenceEncoder",
    "TextEncoder",
    "VideoVAE",
    "encoder_id",
    "encoder_names",
    "find_entry",
    "load_audio_encoder",
    "load_flame_encoder",
    "load_motion_extractor",
    "load_reference_encoder",
    "load_sync_network",
    "load_text_encoder",
    "load_video_vae",
    "random_tiny_vae",
]
