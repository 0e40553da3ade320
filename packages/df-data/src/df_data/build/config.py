"""Configuration of `df-data build`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from df_data.build.encode import EncoderBatches
from df_data.build.prompt import TextConfig
from df_data.sources.config import SourceConfig, SplitConfig
from df_data.stages.prepare import StageConfig
from df_models.device import DEVICE_NAMES, check_device_name
from df_models.encoders import encoder_names
from df_models.encoders.weights import split_spec
from df_models.errors import nearest
from df_models.machine import PrecisionName
from df_models.settings import FrozenModel, Location
from df_models.time import latent_length

_OF_FACES = ("models", "structure", "flame", "audio_encoder")
"""Settings of what general video does not have."""
_STAGES_OF_FACES = ("faces", "crop", "max_gap", "quality", "agreement")
"""Those of the stages (``stages.crop``), which then do not run."""
LANDMARK_STRUCTURE = "mediapipe"
"""The structure encoder that is made of the landmarker's readings."""


class ModelPaths(FrozenModel):
    """Files of the small models of the stages; ``${NAME:-default}`` is replaced from the environment.

    Attributes:
        face_detector: YuNet's ONNX file, or ``NAME:PATH`` (``yunet``, ``retinaface``, ``scrfd``).
        face_landmarker: MediaPipe's face landmarker with blendshapes (``.task``).
        face_identity: MobileFaceNet (``.onnx``), whose vector of the face goes into every sample; null: none does.
        syncnet: SyncNet v2 (``syncnet_v2.model``), which then judges whether audio and lips are apart, by the same
            decision (``stages.quality.sync``); null: the lips' own measure does.
        head_pose: FSA-Net's two files (``.onnx``), which give the score ``head_pose_disagreement``; null: none.
    """

    face_detector: Location = Location("${DF_TEST_WEIGHTS:-../shared/weights}/yunet_n_dynamic.onnx")
    face_landmarker: Location = Location(
        "${DF_TEST_WEIGHTS:-../shared/weights}/mediapipe_face_landmarker_v2_with_blendshapes.task"
    )
    face_identity: Location | None = None
    syncnet: Location | None = None
    head_pose: tuple[Location, Location] | None = None


class ClipConfig(FrozenModel):
    """How a video becomes clips.

    Attributes:
        frames: pixel frames of a training clip, 1 + 4n; every clip is encoded alone, anchored at its own start.
        stride: pixel frames from one clip's start to the next; the last clip ends with the video.
        val_frames: the same for validation clips, of which the first good one of a stretch is kept; none keeps the
            whole stretch. Files that last so long are held out first; of a shorter one the whole is kept, if it has
            ``frames``.
        references: images of the clip that are encoded alone, spread over its length.
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
        faces: false builds general video: whole frames, scaled and cut to the square in their middle, with nothing of
            faces and no audio, for `task: video` of df-train. The settings of what is then left out cannot be given.
        clips: how a video becomes clips.
        structure: ``mediapipe``, made of the landmarks, or ``liveportrait[:LOCATION]``.
        flame: ``deca[:LOCATION]``, ``emoca[:LOCATION]``, or null: no FLAME vectors.
        video_vae, audio_encoder, reference_encoder: see ``df_models.encoders``. As in all these, ``NAME:LOCATION`` says
            where weights lie, and ``${NAME:-default}`` is replaced from the environment.
        text: the prompt of clips without a caption and its encoder, or null: no text features.
        dtype: what the encoders compute in (:meth:`df_data.build.encode.Encoders.load`).
        batch: how much the encoders get at a time.
        keep_video: store the crop with audio as an mp4 beside the tensors (evaluation compares with it).
        clips_per_shard: inputs per shard, about.
        workers: processes; 1 does everything in this one, so an input that crashes it ends the build. This and what
            follows does not change the bytes of the shards.
        device: what the encoders compute on: ``cpu``, ``cuda`` (all), ``cuda:1``, a list that the workers share out, or
            ``auto``: cuda where it is there. Another kind of processor differs in the last bits.
        executor: where they run: ``local``, on this machine, or ``ray``, on the cluster that ``RAY_ADDRESS`` names
            (without it, one on this machine).
        timeout_s: a worker that is silent for so many seconds, with no sample, no refused stretch and no input's end,
            hangs and is killed.
        retries: how often an input that crashed or hung its worker is tried again before it is failed.
        part: ``2/8`` builds the second of eight parts of the shards, for eight machines that see the same inputs;
            ``df-data merge`` joins the parts.
    """

    out: Location
    sources: tuple[SourceConfig, ...] = Field(min_length=1)
    split: SplitConfig = SplitConfig()
    models: ModelPaths = ModelPaths()
    stages: StageConfig = StageConfig()
    clips: ClipConfig = ClipConfig()
    faces: bool = True
    structure: Location = Location(LANDMARK_STRUCTURE)
    flame: Location | None = None
    video_vae: Location = Location("df-tiny")
    audio_encoder: Location = Location("logmel")
    reference_encoder: Location = Location("patches")
    text: TextConfig | None = None
    dtype: PrecisionName = "auto"
    batch: EncoderBatches = EncoderBatches()
    keep_video: bool = True
    clips_per_shard: int = Field(default=64, ge=1)
    workers: int = Field(default=2, ge=1)
    device: str | tuple[str, ...] = "auto"
    executor: Literal["local", "ray"] = "local"
    timeout_s: float = Field(default=1800.0, gt=0)
    retries: int = Field(default=1, ge=0)
    part: str = "1/1"

    @field_validator("structure")
    @classmethod
    def _reads_motion(cls, value: Location) -> Location:
        if value.startswith(f"{LANDMARK_STRUCTURE}:"):
            raise ValueError(f"write {LANDMARK_STRUCTURE} alone; its file is models.face_landmarker")
        return _known(value, [LANDMARK_STRUCTURE, *encoder_names("structure", loadable=True)])

    @field_validator("flame")
    @classmethod
    def _reads_flame(cls, value: Location | None) -> Location | None:
        return None if value is None else _known(value, list(encoder_names("flame")))

    @field_validator("device")
    @classmethod
    def _is_device(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if isinstance(value, str):
            return check_device_name(value)
        if not value or not all(check_device_name(name).startswith("cuda:") for name in value):
            raise ValueError(f"write {DEVICE_NAMES}, or a list of GPUs such as [cuda:0,cuda:1]")
        return value

    @model_validator(mode="after")
    def _nothing_of_faces(self) -> Self:
        given = _changed(self, _OF_FACES) + [f"stages.{name}" for name in _changed(self.stages, _STAGES_OF_FACES)]
        if not self.faces and given:
            raise ValueError(f"faces=false builds general video, which has no {given[0]}; leave that setting out")
        return self

    @model_validator(mode="after")
    def _captions_can_be_read(self) -> Self:
        named = [source.name for source in self.sources if source.captions is not None]
        if named and self.text is None:
            raise ValueError(
                f"source {named[0]!r} has captions, but there is no text encoder to read them; give one, and the words "
                "of videos that have none: text={prompt: A video.}"
            )
        return self

    @property
    def crop_rule(self) -> str:
        """How clips are cropped around faces, ``none`` for general video."""
        return self.stages.crop if self.faces else "none"

    @model_validator(mode="after")
    def _pose_can_be_judged(self) -> Self:
        if self.stages.quality.max_pose_disagreement is not None and self.models.head_pose is None:
            raise ValueError("stages.quality.max_pose_disagreement needs models.head_pose: give its two files")
        return self

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


def _changed(settings: FrozenModel, names: tuple[str, ...]) -> list[str]:
    """Return those of some settings that are not at their defaults."""
    return [name for name in names if getattr(settings, name) != type(settings).model_fields[name].default]


def _known(spec: Location, names: list[str]) -> Location:
    name = split_spec(spec)[0]
    if name not in names:
        raise ValueError(f"there is no {name!r}{nearest(name, names)}; there is {', '.join(names)}")
    return spec
