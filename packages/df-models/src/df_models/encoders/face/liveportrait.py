"""LivePortrait's motion extractor: a face crop to expression, head angles, translation and scale.

Shape legend: B batch, D = 768 features, K = 21 keypoints, N = 66 bins of an angle. A keypoint is (x, y, z): right, down
and inward, the crop reaching from -1 to 1.

Source of the layout and of every formula: KwaiVGI/LivePortrait, ``src/modules/motion_extractor.py`` and
``src/config/models.yaml`` (network), ``src/live_portrait_wrapper.py`` (what is decoded, how keypoints are composed),
``src/utils/camera.py`` (angles), ``src/modules/util.py`` (axes), ``src/utils/crop.py`` (crops). The published
``motion_extractor.pth`` (112 545 506 bytes, sha256 251e6a94...0ca5) is a plain state dict; the original loads it
strictly (``src/utils/helper.py``), so it holds nothing else.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from df_models.encoders.face.convnextv2 import FEATURES, ConvNeXtV2
from df_models.encoders.face.frozen_face import FrozenFace
from df_models.encoders.weights import Origin, find_file, load_strict, locate, read_tensors
from df_models.structure import LIVEPORTRAIT_70, VectorLayout

KEYPOINTS = 21
BINS = 66
DEGREES_PER_BIN = 3.0
LAST_DEGREE = 97.5

FILE = "motion_extractor.pth"
ORIGIN = Origin(
    name="liveportrait",
    licence="MIT",
    how_to_get=f"fetch liveportrait/base_models/{FILE} from https://huggingface.co/KwaiVGI/LivePortrait",
    hub_id="KwaiVGI/LivePortrait",
    files=(FILE,),
    subfolder="liveportrait/base_models",
)


class LivePortrait(FrozenFace):
    """The frozen motion extractor: see :class:`df_models.encoders.base.FaceEncoder` for the protocol.

    The crop is that of LivePortrait's driving videos: side 2.2 times the larger side of the face's box, centre moved up
    by 0.1 of the crop's side, upright, one crop for the whole clip (``src/utils/cropper.py``, ``crop_driving_video``).
    A source image gets 2.3, -0.125 and is turned upright (``src/config/argument_config.py``).
    LivePortrait's box is the extent of its 203 face landmarks along the axis from eyes to lips, which has no forehead.
    A detector's box is another: YuNet's has 1.37 times the side on GRID clips, so that the same rule on it shows the
    face a quarter smaller. df-data draws the box around MediaPipe's landmarks.
    """

    layout: VectorLayout = LIVEPORTRAIT_70
    size = 256
    crop_scale = 2.2
    crop_offset_y = -0.1

    @torch.no_grad()
    def encode(self, faces_BCHW: Tensor) -> Tensor:
        """Encode crops ``[B, 3, 256, 256]`` in [0, 1] to ``[B, 70]``, float32; angles are in degrees.

        Raises:
            UserError: the crops are of another size or kind.
        """
        heads = self._heads(faces_BCHW)
        fields = {angle: angle_degrees(heads[angle])[:, None] for angle in ("pitch", "yaw", "roll")}
        fields |= {"expression": heads["exp"], "translation": heads["t"], "scale": heads["scale"]}
        return torch.cat([fields[name] for name, _ in self.layout.fields], dim=1)

    @torch.no_grad()
    def canonical_keypoints(self, faces_BCHW: Tensor) -> Tensor:
        """Return the face's keypoints ``[B, 21, 3]``, float32, before expression and pose; errors as in `encode`."""
        return self._heads(faces_BCHW)["kp"].unflatten(1, (KEYPOINTS, 3))

    def _heads(self, faces_BCHW: Tensor) -> dict[str, Tensor]:
        heads = self.module.get_submodule("detector")(self._prepare(faces_BCHW))
        return {name: value.float() for name, value in heads.items()}


class MotionDetector(ConvNeXtV2):
    """The trunk with a linear head per quantity; the checkpoint's names begin with ``detector.``."""

    def __init__(self) -> None:
        super().__init__()
        self.fc_kp = nn.Linear(FEATURES, 3 * KEYPOINTS)
        self.fc_scale = nn.Linear(FEATURES, 1)
        self.fc_pitch = nn.Linear(FEATURES, BINS)
        self.fc_yaw = nn.Linear(FEATURES, BINS)
        self.fc_roll = nn.Linear(FEATURES, BINS)
        self.fc_t = nn.Linear(FEATURES, 3)
        self.fc_exp = nn.Linear(FEATURES, 3 * KEYPOINTS)

    def forward(self, image_B3HW: Tensor) -> dict[str, Tensor]:
        """Return what each head gives, ``[B, width]``, by its name without ``fc_``."""
        features_BD = super().forward(image_B3HW)
        return {name[3:]: head(features_BD) for name, head in self.named_children() if name.startswith("fc_")}


def angle_degrees(logits_N: Tensor) -> Tensor:
    """Return the expected angle ``[...]`` of logits ``[..., 66]``: bins are 3 degrees apart, -97.5 to 97.5."""
    bins_N = torch.arange(BINS, dtype=logits_N.dtype, device=logits_N.device)
    return (logits_N.softmax(dim=-1) * bins_N).sum(dim=-1) * DEGREES_PER_BIN - LAST_DEGREE


def head_rotation(angles_3: Tensor) -> Tensor:
    """Return ``R [..., 3, 3]`` of pitch, yaw and roll ``[..., 3]`` in degrees, to be used as ``rows @ R``.

    ``R = (R_z(roll) R_y(yaw) R_x(pitch))^T``: right-handed turns about x, then y, then z.
    """
    pitch, yaw, roll = torch.deg2rad(angles_3).unbind(dim=-1)
    return (_turn(roll, 0, 1) @ _turn(yaw, 2, 0) @ _turn(pitch, 1, 2)).mT


def compose_keypoints(canonical_K3: Tensor, vector_70: Tensor) -> Tensor:
    """Return keypoints ``[..., 21, 3]`` of canonical ones ``[..., 21, 3]`` under motion vectors ``[..., 70]``.

    ``scale * (canonical @ R + expression) + (t_x, t_y, 0)``: as in the original, the translation's z is not applied.
    Leading dimensions broadcast.
    """
    fields = {name: vector_70[..., LIVEPORTRAIT_70.slice(name)] for name, _ in LIVEPORTRAIT_70.fields}
    rotation_33 = head_rotation(torch.cat([fields["pitch"], fields["yaw"], fields["roll"]], dim=-1))
    posed_K3 = canonical_K3 @ rotation_33 + fields["expression"].unflatten(-1, (KEYPOINTS, 3))
    in_plane_3 = fields["translation"] * fields["translation"].new_tensor([1.0, 1.0, 0.0])
    return fields["scale"][..., None] * posed_K3 + in_plane_3[..., None, :]


def _turn(angle: Tensor, first: int, second: int) -> Tensor:
    matrix = torch.eye(3, dtype=angle.dtype, device=angle.device).expand(*angle.shape, 3, 3).clone()
    matrix[..., first, first] = matrix[..., second, second] = angle.cos()
    matrix[..., second, first] = angle.sin()
    matrix[..., first, second] = -angle.sin()
    return matrix


def load(name: str, location: str | None) -> LivePortrait:
    """Load the motion extractor from a file, a directory, a Hub id or, without a location, its own Hub id.

    Raises:
        UserError: the weights cannot be found or are not the motion extractor's.
    """
    assert name == ORIGIN.name
    names = (FILE, f"{ORIGIN.subfolder}/{FILE}", "motion_extractor.safetensors")
    path = find_file(ORIGIN, locate(ORIGIN, location), names)
    module = nn.ModuleDict({"detector": MotionDetector()})
    load_strict(module, read_tensors(path), ORIGIN, path)
    return LivePortrait(module, ORIGIN, path)
