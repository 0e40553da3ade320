"""A tiny model with random weights, constructed clips for it, and a reader of their one feature."""

from __future__ import annotations

import numpy as np
import torch
from fabricated import SHIFTS, image, signal

from df_eval.clips import EvalClip
from df_eval.reading.readings import FaceReadings, Lips, signals_of
from df_infer.pipeline import Pipeline
from df_infer.rollout import RolloutConfig
from df_models import DualForce
from df_models.encoders import load_audio_encoder, load_reference_encoder, random_tiny_vae

TINY = {
    "dim": 48, "num_layers": 1, "num_heads": 2, "ffn_dim": 64, "structure_width": 32, "structure_layers": 1,
    "structure_heads": 2, "structure_ffn_dim": 64, "fusion_depth": 1, "bridge_width": 32, "bridge_heads": 2,
    "audio_width": 32, "audio_heads": 2, "reference_width": 32, "flame_dim": 0, "video_size": 16,
}  # fmt: skip
ROLLOUT = RolloutConfig(steps=2, window=4)


def tiny_pipeline(**changes: object) -> Pipeline:
    torch.manual_seed(0)
    model = DualForce.from_preset("quickstart", **TINY | changes)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.2)
    return Pipeline(
        model.eval(), random_tiny_vae(0), load_audio_encoder("logmel"), load_reference_encoder("patches"), ROLLOUT
    )


def tiny_clips(count: int = 3, frames: int = 33 + max(SHIFTS)) -> list[EvalClip]:
    made = []
    for index in range(count):
        mouth = signal(frames, index)
        wave = np.random.default_rng(index).normal(size=640 * len(mouth)).astype(np.float32) * 0.1
        made.append(EvalClip(f"c{index}", str(index), image(mouth, index), wave, {"mouth_open": mouth}))
    return made


class DarkBarReader:
    """Reads the mouth of the constructed images: how dark the bar is."""

    id = "dark bar"
    truth_note = "constructed"
    unavailable = {"identity_distance": "a bar has no identity"}  # noqa: RUF012

    def read(self, frames_THWC: np.ndarray) -> FaceReadings:
        dark = -frames_THWC[:, 10:13, 5:11].mean(axis=(1, 2, 3))
        return FaceReadings(np.ones(len(dark), bool), dark)

    def truth(self, clip: EvalClip) -> FaceReadings:
        return signals_of(clip.truth)

    def structure_lips(self, structure_TD: np.ndarray) -> Lips:
        return Lips(structure_TD[:, 0].astype(np.float64), None)
