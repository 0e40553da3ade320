"""What a synthetic corpus can be told; apart from the code that makes it, which loads a compiler (numba)."""

from __future__ import annotations

from pydantic import Field, field_validator

from df_data.synth.speech.sentences import Split
from df_models.settings import FrozenModel, Location
from df_models.time import latent_length

PEOPLE = 2_000_000
"""People that there are, by their numbers: the first half are those of training clips (`df_data.synth.clip`)."""


class SynthConfig(FrozenModel):
    """A synthetic corpus.

    Attributes:
        clips: training clips.
        val_clips: held-out clips, of people and with words that training never meets.
        frames: pixel frames of a training clip, 1 + 4 n, 25 a second.
        val_frames: pixel frames of a held-out clip.
        size: pixels a side.
        seed: another one makes other people and sentences.
        clips_per_identity: clips of each person.
        person: the number of the only person of all clips, training and held-out ones, which then differ in their words
            alone; from 1000000 on nobody that the training clips of any corpus show. Null: many people, and no one in
            both.
        references: frames of each clip that are encoded alone, as portraits.
        keep_train_video: keep the training clips' pixels too, as mp4 (held-out clips always have them).
        video_vae: name of the VAE, or `NAME:PATH`.
        audio_encoder: name of the audio encoder, or `NAME:PATH`.
        reference_encoder: name of the encoder of portraits, or `NAME:PATH`.
        clips_per_shard: clips of a shard, about.
        workers: rendering processes.
    """

    clips: int = Field(default=1000, ge=1)
    val_clips: int = Field(default=32, ge=1)
    frames: int = Field(default=33, ge=1)
    val_frames: int = Field(default=129, ge=1)
    size: int = Field(default=64, ge=32, multiple_of=16)
    seed: int = Field(default=0, ge=0)
    clips_per_identity: int = Field(default=1, ge=1)
    person: int | None = Field(default=None, ge=0, lt=PEOPLE)
    references: int = Field(default=4, ge=1)
    keep_train_video: bool = False
    video_vae: Location = Location("df-tiny")
    audio_encoder: Location = Location("logmel")
    reference_encoder: Location = Location("patches")
    clips_per_shard: int = Field(default=256, ge=1)
    workers: int = Field(default=2, ge=1)

    @field_validator("frames", "val_frames")
    @classmethod
    def _whole_latent_frames(cls, value: int) -> int:
        latent_length(value)
        return value

    def count(self, split: Split) -> int:
        """Number of clips of a split."""
        return self.clips if split == "train" else self.val_clips
