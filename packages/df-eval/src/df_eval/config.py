"""Everything an evaluation can be told, with its defaults. What counts as reached is not among it: see `goals`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator

from df_infer.config import RolloutChanges
from df_models.device import check_device_name
from df_models.settings import FrozenModel, Location
from df_models.time import latent_length


class ReadersConfig(FrozenModel):
    """Files of the networks that read pixels. What needs a file that is not given is reported as unavailable, with the
    setting that would give it.

    Attributes:
        landmarker: MediaPipe's face_landmarker.task: lips, lids, pose, and where the face is for the next two; by
            default the file that the dataset was built with.
        identity: face recognition network in ONNX for faces of 112x112: an ArcFace one, or `mobilefacenet:PATH`.
        syncnet: SyncNet v2's weights (syncnet_v2.model), for Sync-C and Sync-D.
        i3d: TorchScript archive of I3D of StyleGAN-V's port (i3d_torchscript.pt), for FVD.
        cd_i3d: TorchScript archive of I3D of cd-fvd's port, traced, for its FVD.
        inception: TorchScript archive of Inception of StyleGAN's metrics (inception-2015-12-05.pt), for FID and KID.
        lpips: TorchScript archive of VGG-16 with LPIPS's weights of StyleGAN's metrics (vgg16.pt).
    """

    landmarker: Location | None = None
    identity: Location | None = None
    syncnet: Location | None = None
    i3d: Location | None = None
    cd_i3d: Location | None = None
    inception: Location | None = None
    lpips: Location | None = None


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
        clips: held-out clips, each of another sentence, of people that training did not see.
        frames: lengths to generate and measure, in pixel frames (each 1 + 4 n; 25 per second).
        seed: keys the noise of generation, the bootstrap, and the held-out clips rendered where too few are stored.
        batch_size: clips generated together.
        max_lag: frames by which lip-sync is searched earlier and later.
        shifts: by how many frames later the truth is taken in the shifted-audio control, each at least 25 (1 s).
        resamples: bootstrap resamples of every interval.
        videos: clips shown side by side in the report.
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

    clips: int = Field(default=16, ge=1)
    frames: tuple[int, ...] = (33, 129)
    seed: int = Field(default=0, ge=0)
    batch_size: int = Field(default=16, ge=1)
    max_lag: int = Field(default=5, ge=0, le=25)
    shifts: tuple[int, ...] = (25, 30, 35, 40, 45, 50)
    resamples: int = Field(default=2000, ge=100)
    videos: int = Field(default=4, ge=0)
    rollout: RolloutChanges = RolloutChanges()
    device: Annotated[str, AfterValidator(check_device_name)] = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    data: Location | None = None
    render: bool = False
    checkpoint: int | None = Field(default=None, ge=1)
    readers: ReadersConfig = ReadersConfig()
    baseline: BaselineConfig = BaselineConfig()

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

    @field_validator("shifts")
    @classmethod
    def _at_least_a_second(cls, shifts: tuple[int, ...]) -> tuple[int, ...]:
        if not shifts or min(shifts) < 25:
            raise ValueError("the shifted-audio control needs shifts of at least 25 frames (1 s)")
        return tuple(sorted(set(shifts)))
