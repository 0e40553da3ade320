"""Configuration of `df-data build`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from df_data.config import FrozenModel
from df_data.sources import SourceConfig, SplitConfig
from df_data.stages.prepare import StageConfig
from df_models.time import latent_length


class ModelPaths(FrozenModel):
    """Files of the small models of the stages; ``${NAME:-default}`` is replaced from the environment.

    Attributes:
        face_detector: YuNet's ONNX file.
        face_landmarker: MediaPipe's face landmarker with blendshapes (``.task``).
        face_identity: MobileFaceNet (``.onnx``), whose vector of the face goes into every sample; null: none does.
    """

    face_detector: str = "${DF_TEST_WEIGHTS:-../shared/weights}/yunet_n_dynamic.onnx"
    face_landmarker: str = "${DF_TEST_WEIGHTS:-../shared/weights}/mediapipe_face_landmarker_v2_with_blendshapes.task"
    face_identity: str | None = None


class ClipConfig(FrozenModel):
    """How a video becomes clips.

    Attributes:
        frames: pixel frames of a training clip, 1 + 4n; every clip is encoded alone, anchored at its own start.
        stride: pixel frames from one clip's start to the next; the last clip ends with the video.
        val_frames: the same for validation clips, of which only the first is kept; none keeps the whole video.
        references: pictures of the clip that are encoded alone, spread over its length.
    """

    frames: int | None = 33
    stride: int = Field(default=20, ge=1)
    val_frames: int | None = None
    references: int = Field(default=4, ge=1)

    @field_validator("frames", "val_frames")
    @classmethod
    def _anchored(cls, value: int | None) -> int | None:
        if value is not None:
            latent_length(value)
        return value


class BuildConfig(FrozenModel):
    """Everything that `df-data build` does.

    Attributes:
        out: directory of the dataset.
        sources: folders of videos.
        split: what is held out.
        models: files of the face detector and the landmarker.
        stages: settings of the stages.
        clips: how a video becomes clips.
        structure: encoder of the structure vector.
        video_vae, audio_encoder, reference_encoder: see ``df_models.encoders``.
        keep_video: store the crop with sound as an mp4 beside the tensors (evaluation compares with it).
        clips_per_shard: inputs per shard, about.
        workers: processes; 1 does everything in this one, so an input that crashes it ends the build. This and what
            follows does not change the bytes of the shards.
        executor: where they run: ``local``, on this machine, or ``ray``, on the cluster that ``RAY_ADDRESS`` names
            (without it, one on this machine).
        timeout_s: a worker that is silent for so many seconds, neither with a sample nor with an input's end, hangs
            and is killed.
        retries: how often an input that crashed or hung its worker is tried again before it is failed.
        part: ``2/8`` builds the second of eight parts of the shards, for eight machines that see the same inputs;
            ``df-data merge`` joins the parts.
    """

    out: str
    sources: tuple[SourceConfig, ...] = Field(min_length=1)
    split: SplitConfig = SplitConfig()
    models: ModelPaths = ModelPaths()
    stages: StageConfig = StageConfig()
    clips: ClipConfig = ClipConfig()
    structure: str = Field(default="mediapipe", pattern="^mediapipe$")
    video_vae: str = "df-tiny"
    audio_encoder: str = "logmel"
    reference_encoder: str = "patches"
    keep_video: bool = True
    clips_per_shard: int = Field(default=64, ge=1)
    workers: int = Field(default=2, ge=1)
    executor: Literal["local", "ray"] = "local"
    timeout_s: float = Field(default=1800.0, gt=0)
    retries: int = Field(default=1, ge=0)
    part: str = "1/1"

    @field_validator("part")
    @classmethod
    def _is_part(cls, value: str) -> str:
        index, _, count = value.partition("/")
        if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
            raise ValueError("write which part of how many, as in 2/8")
        return value

    def takes(self, shard: int) -> bool:
        """Whether a shard belongs to the part that is to be built."""
        index, count = map(int, self.part.split("/"))
        return shard % count == index - 1
