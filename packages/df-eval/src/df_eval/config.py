"""Everything an evaluation can be told, with its defaults. What counts as reached is not among it: see `goals`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from df_infer.config import RolloutChanges
from df_models.device import check_device_name
from df_models.settings import FrozenModel, Location
from df_models.time import latent_length

MOST_LAG = 25
"""Frames by which the search for the best lag may move a video: one second."""


class ReadersConfig(FrozenModel):
    """Files of the networks that read pixels. What needs a file that is not given is reported as unavailable, with the
    setting that would give it.

    Attributes:
        landmarker: MediaPipe's face_landmarker.task: lips, lids, pose, brows, gaze, expression, and where the
            face is for the next two; by default the file that the dataset was built with.
        identity: face recognition network in ONNX for faces of 112x112: an ArcFace one, or `mobilefacenet:PATH`; a
            file of the other kind is told by its width and refused.
        quality: eDifFIQA in ONNX (ediffiqa_tiny_jun2024.onnx), for the quality of faces.
        syncnet: SyncNet v2's weights (syncnet_v2.model), for Sync-C and Sync-D.
        deca: DECA's weights (deca_model.tar), or `emoca:PATH`, for head pose, expression and jaw as FLAME has them.
        gaze: L2CS-Net's weights of Gaze360 (L2CSNet_gaze360.pkl), for the direction of the gaze.
        vad: Silero VAD in ONNX (silero_vad_16k_sequence.onnx of the package silero-vad), for THEval's measures of lips
            in speech and in silence.
        i3d: TorchScript archive of I3D of StyleGAN-V's port (i3d_torchscript.pt), for FVD.
        cd_i3d: TorchScript archive of I3D of cd-fvd's port, traced, for its FVD.
        inception: TorchScript archive of Inception of StyleGAN's metrics (inception-2015-12-05.pt), for FID and KID.
        lpips: TorchScript archive of VGG-16 with LPIPS's weights of StyleGAN's metrics (vgg16.pt).
    """

    landmarker: Location | None = None
    identity: Location | None = None
    quality: Location | None = None
    syncnet: Location | None = None
    deca: Location | None = None
    gaze: Location | None = None
    vad: Location | None = None
    i3d: Location | None = None
    cd_i3d: Location | None = None
    inception: Location | None = None
    lpips: Location | None = None


class ClipListConfig(FrozenModel):
    """One clip list of a protocol.

    Attributes:
        seed: of rendered clips.
        sha256: the list's hash; another list is refused. Null: the hash is printed and nothing is refused.
    """

    seed: int | None = Field(default=None, ge=0)
    sha256: str | None = None


class ProtocolConfig(FrozenModel):
    """What makes a file of settings a protocol: a name, and the clips. With it, the settings that decide a number
    (`df_eval.protocols.protocol.FROZEN`) cannot be changed on the command line.

    Attributes:
        name: as the report prints it.
        clips_from: `rendered`: synthetic people rendered for each list; `dataset`: the held-out clips of the run's
            dataset, in either list by the hash of their name.
        prefix: only clips of the dataset whose name begins so.
        dev: the list that settings are chosen on.
        test: the list that is quoted.
        readers: SHA-256 of the readers' files, by their names in `readers`; another file is refused. Behind a kind
            (`mobilefacenet:b712...`) the file must be given with that kind, too.
    """

    name: str = Field(min_length=1)
    clips_from: Literal["rendered", "dataset"]
    prefix: str = ""
    dev: ClipListConfig = ClipListConfig()
    test: ClipListConfig = ClipListConfig()
    readers: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _lists(self) -> ProtocolConfig:
        seeds = (self.dev.seed, self.test.seed)
        if self.clips_from == "rendered" and (None in seeds or seeds[0] == seeds[1]):
            raise ValueError("rendered clips need a seed of dev and another one of test")
        if self.clips_from == "dataset" and seeds != (None, None):
            raise ValueError("the clips of a dataset have no seed; leave dev.seed and test.seed out")
        if unknown := self.readers.keys() - ReadersConfig.model_fields.keys():
            raise ValueError(f"{sorted(unknown)[0]!r} is no reader; there are {', '.join(ReadersConfig.model_fields)}")
        return self


class DriftConfig(FrozenModel):
    """A long generation, measured window by window as it is made; nothing of it is held.

    Attributes:
        frames: pixel frames to generate (1 + 4 n; 25 per second, so 250001 are 10 000 s). Null: none.
        window: pixel frames of a window.
        at: after how many frames a window ends; then each time the length has doubled, and at the end.
    """

    frames: int | None = None
    window: int = Field(default=33, ge=25)
    at: tuple[int, ...] = (33, 129, 257, 513)

    @model_validator(mode="after")
    def _fits(self) -> DriftConfig:
        if not self.at or min(self.at) < self.window:
            raise ValueError(f"the first window ends after {self.window} frames or more; raise at, or lower window")
        if self.frames is not None:
            latent_length(self.frames)
            if self.frames < self.window:
                raise ValueError(f"{self.frames} frames hold no window of {self.window}")
        return self


CONTACT_CLIPS = 4
"""Clips on the report's contact sheets."""


class BaselineConfig(FrozenModel):
    """What may be changed of another system's videos (`--baseline NAME=DIR`). What is wrong with them is told, and
    mended only by these; the report says where.

    Attributes:
        resize: resize videos of another size to the clips', if it has the same shape (bicubic). Otherwise they are left
            out.
        retime: take the image nearest in time 25 times a second of videos of another rate. Otherwise they are left out.
        realign: leave out the first frames of videos whose sound comes later than the clip's by as much. Otherwise they
            are measured as they are.
    """

    resize: bool = False
    retime: bool = False
    realign: bool = False


class EvalConfig(FrozenModel):
    """The protocol of one evaluation; written into metrics.json as resolved.

    Attributes:
        protocol: what the file of a protocol says of itself (`--protocol NAME`).
        split: the protocol's list to measure on: `dev`, or `test` for what is quoted.
        clips: held-out clips, each of another sentence, of people that training did not see.
        frames: lengths to generate and measure, in pixel frames (each 1 + 4 n; 25 per second).
        seed: keys the noise of generation, the bootstrap, and the held-out clips rendered where too few are stored.
        batch_size: clips generated together; so many videos of each system and length are in memory at once.
        max_lag: frames by which lip-sync is searched earlier and later.
        shifts: by how many frames later the truth is taken in the shifted-audio control, each at least 25 (1 s).
        resamples: bootstrap resamples of every interval.
        videos: clips shown side by side in the report.
        codec: what videos pass through before they are read, but for the truth and other systems' files: `raw`:
            nothing; `h264`: H.264 as df-infer writes it (yuv420p), since other systems' videos come so.
        drift: a long generation beside the clips.
        interventions: also generate each clip with the structure, and with the reference image, of another clip, to see
            which of them pose, mouth and identity follow.
        sync_codecs: also measure SyncNet's scores of the truth and of every system behind H.264, H.265, AAC and MP3, at
            the longest length: how far a codec alone moves them.
        rollout: settings of generation to change from the run's own, such as `rollout.steps=8`.
        device: `auto` takes a GPU if there is one.
        dtype: of the model while generating; `auto` as in `df_models.machine.choose_precision`.
        data: the run's dataset, where it is not found by itself; another one is refused.
        render: measure on held-out people rendered for it, where a run's synthetic corpus is not at hand.
        checkpoint: measure the run's milestone of this step (`models/step-N/`) instead of its final model, into
            `eval/step-N/`.
        readers: files of the networks that read real video; a synthetic corpus has its own exact reader.
        baseline: what may be changed of another system's videos.
    """

    protocol: ProtocolConfig | None = None
    split: Literal["dev", "test"] | None = None
    clips: int = Field(default=16, ge=1)
    frames: tuple[int, ...] = (33, 129)
    seed: int = Field(default=0, ge=0)
    batch_size: int = Field(default=16, ge=1)
    max_lag: int = Field(default=5, ge=0, le=MOST_LAG)
    shifts: tuple[int, ...] = (25, 30, 35, 40, 45, 50)
    resamples: int = Field(default=2000, ge=100)
    videos: int = Field(default=4, ge=0)
    codec: Literal["raw", "h264"] = "raw"
    drift: DriftConfig = DriftConfig()
    interventions: bool = False
    sync_codecs: bool = False
    rollout: RolloutChanges = RolloutChanges()
    device: Annotated[str, AfterValidator(check_device_name)] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float8"] = "auto"
    data: Location | None = None
    render: bool = False
    checkpoint: int | None = Field(default=None, ge=1)
    readers: ReadersConfig = ReadersConfig()
    baseline: BaselineConfig = BaselineConfig()

    @property
    def shown(self) -> int:
        """Clips whose videos the report needs."""
        return max(self.videos, CONTACT_CLIPS)

    @field_validator("frames")
    @classmethod
    def _lengths(cls, frames: tuple[int, ...]) -> tuple[int, ...]:
        if not frames:
            raise ValueError("give at least one length")
        for count in frames:
            latent_length(count)
            if count < 25:
                raise ValueError(f"{count} pixel frames are too few to measure lip-sync; use 25 or more")
        return tuple(sorted(set(frames)))

    @model_validator(mode="after")
    def _of_a_protocol(self) -> EvalConfig:
        if self.split is not None and self.protocol is None:
            raise ValueError("split=dev and split=test are lists of a protocol; name one (--protocol NAME)")
        if self.protocol is not None and self.split is None:
            raise ValueError("a protocol is measured on one of its lists; set split: dev or split: test")
        if self.protocol is not None and self.render:
            raise ValueError("a protocol says which clips it is measured on; leave render out")
        return self

    @field_validator("shifts")
    @classmethod
    def _at_least_a_second(cls, shifts: tuple[int, ...]) -> tuple[int, ...]:
        if not shifts or min(shifts) < 25:
            raise ValueError("the shifted-audio control needs shifts of at least 25 frames (1 s)")
        return tuple(sorted(set(shifts)))
