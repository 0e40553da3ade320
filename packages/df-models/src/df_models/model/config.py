"""Configurations: one frozen dataclass per model, and the named presets.

:class:`DualForceConfig` is flat, so that one override is one name (``from_preset("quickstart", num_layers=4)``). The
video tower has Wan's own names (``dim``, ``num_heads``, ``ffn_dim``, ...), the structure tower the same names behind
``structure_``. ``config.video`` and ``config.structure`` are the two towers' own configurations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any, Literal, TypeVar, get_args

from df_models.encoders.registry import AudioPool, audio_pool
from df_models.errors import UserError, nearest
from df_models.structure import StructureLayout

StreamNames = Literal["both", "video", "structure"]
BridgeDirection = Literal["both", "struct_to_video", "none"]
BridgeMask = Literal["frame", "causal"]
StructureGiven = Literal["never", "sometimes", "always"]


@dataclass(frozen=True)
class VideoDiTConfig:
    """Configuration of one video tower.

    ``text_dim=0`` builds no text branch; ``reference=True`` adds the second key/value branch that Wan's I2V models
    have for image tokens (already of width ``dim``).
    """

    dim: int
    num_layers: int
    num_heads: int
    ffn_dim: int
    in_dim: int = 36
    out_dim: int = 16
    patch_size: tuple[int, int, int] = (1, 2, 2)
    text_dim: int = 4096
    freq_dim: int = 256
    reference: bool = False
    rope_theta: float = 1e4
    eps: float = 1e-6

    def __post_init__(self) -> None:
        _check_types(self)
        object.__setattr__(self, "patch_size", tuple(self.patch_size))
        _check_tower("", self)
        if len(self.patch_size) != 3 or self.patch_size[0] != 1 or min(self.patch_size) < 1:
            raise UserError(f"patch_size must be (1, height, width), not {self.patch_size}: latent frames stay apart")
        if self.dim // self.num_heads < 6:
            raise UserError(f"dim / num_heads is {self.dim // self.num_heads}; rotary positions in t, h, w need 6")


@dataclass(frozen=True, kw_only=True)
class StructureDiTConfig:
    """Configuration of one structure tower.

    ``vector_dim`` is the width of a structure vector; ``known`` adds an input that tells which entries are given.
    """

    dim: int
    num_layers: int
    num_heads: int
    ffn_dim: int
    vector_dim: int = 70
    known: bool = False
    text_dim: int = 0
    freq_dim: int = 256
    rope_theta: float = 1e4
    eps: float = 1e-6

    def __post_init__(self) -> None:
        _check_tower("structure_", self)


@dataclass(frozen=True, kw_only=True)
class DualForceConfig:
    """Configuration of the whole model.

    ``streams`` says what the model denoises: ``both``, ``video`` alone (no structure tower, bridge and FLAME head), or
    ``structure`` alone, from audio (no video tower, bridge and reference). Settings of parts that a model lacks stand
    for nothing, but are checked and kept: a model that has the parts can be made of the same configuration.

    Video tower: ``dim``, ``num_layers``, ``num_heads``, ``ffn_dim``, ``in_channels`` (latent channels), ``patch_size``.
    Structure tower: ``structure_width``, ``structure_layers``, ``structure_heads``, ``structure_ffn_dim``;
    ``structure_dim`` is the width of a structure vector, ``structure_text`` lets the tower read the text, and
    ``structure_known`` tells it which entries are given clean within a noisy frame (an input that starts at zero).
    Both: ``text_dim`` (0: no text), ``freq_dim``, ``rope_theta``, ``eps``.

    Exchange, in the first ``fusion_depth`` layers: the bridge (``bridge_width``, ``bridge_heads``,
    ``bridge_direction``, ``bridge_mask``) and audio (``audio_dim`` features per 25 Hz slot, 0: no audio;
    ``audio_width``, ``audio_heads``). A latent frame hears ``audio_past`` slots before its own four and
    ``audio_future`` after them; the future part is latency: ``audio_future / 25`` seconds. ``gate_gain`` multiplies
    every gate's parameter, which starts at zero: under Adam a gate moves by about ``gate_gain * lr`` per step.

    Reference tokens: ``reference_dim`` (0: none), resampled to ``reference_tokens`` tokens in ``reference_width``.
    FLAME head: ``flame_dim`` (0: none), ``flame_width``.

    The rest travels with the weights and tells programs how the model was trained: ``sigma_structure_max``, the ids
    ``video_vae``, ``audio_encoder``, ``reference_encoder``, ``text_encoder`` (where ``text_dim`` is above 0), how the
    two audio features of a pixel frame became one slot (``audio_pool``; None takes the encoder's own), what the
    structure vectors mean (``structure_layout``; None: not known), the hashes of the encoders' weights by role
    (``encoder_hashes``: ``audio``, ``reference``, ``text``, ``video_vae``; those of the dataset it was trained on), how
    loud its speech was (``speech_level`` in dB, :mod:`df_models.media.levels`; None: not known), how faces were
    cropped, ``face_crop``, and to how many pixels a side, ``video_size`` (what generation makes; the towers themselves
    take any size). What generation may tell it, and must not ask of it: whether the clips of its training were given
    all of their structure (``structure_given``: ``never``, ``sometimes``, or ``always``: it then learnt to make none),
    which groups of fields they were given (``given_fields``), and ``one_level_frames``: latent frames of the longest
    clip of a training with one noise level for all frames of a clip, which makes whole clips only; 0: each frame had
    its own level.
    """

    dim: int
    num_layers: int
    num_heads: int
    ffn_dim: int
    structure_width: int
    structure_layers: int
    structure_heads: int
    structure_ffn_dim: int
    fusion_depth: int
    bridge_width: int
    bridge_heads: int
    audio_width: int
    audio_heads: int
    latent_channels: int = 16
    patch_size: tuple[int, int, int] = (1, 2, 2)
    streams: StreamNames = "both"
    structure_dim: int = 70
    structure_text: bool = False
    structure_known: bool = False
    text_dim: int = 0
    freq_dim: int = 256
    rope_theta: float = 1e4
    eps: float = 1e-6
    bridge_direction: BridgeDirection = "both"
    bridge_mask: BridgeMask = "frame"
    audio_dim: int = 128
    audio_past: int = 6
    audio_future: int = 4
    gate_gain: float = 10.0
    reference_dim: int = 64
    reference_tokens: int = 16
    reference_width: int = 128
    flame_dim: int = 159
    flame_width: int = 128
    sigma_structure_max: float = 0.7
    video_vae: str = "df-tiny"
    audio_encoder: str = "logmel"
    reference_encoder: str = "patches"
    text_encoder: str = "umt5-xxl"
    audio_pool: AudioPool | None = None
    structure_layout: StructureLayout | None = None
    encoder_hashes: tuple[tuple[str, str], ...] = ()
    speech_level: float | None = None
    face_crop: str = "none"
    video_size: int = 64
    structure_given: StructureGiven = "never"
    given_fields: tuple[tuple[str, ...], ...] = ()
    one_level_frames: int = 0

    def __post_init__(self) -> None:
        _check_types(self)
        object.__setattr__(self, "patch_size", tuple(self.patch_size))
        self._complete_contract()
        self._check_sizes()
        self._check_exchange()
        _ = self.video, self.structure

    def _check_sizes(self) -> None:
        _one_of("streams", self.streams, get_args(StreamNames))
        positive = ("latent_channels", "structure_dim", "reference_tokens", "reference_width")
        for name in (*positive, "flame_width"):
            _require(getattr(self, name) >= 1, f"{name} must be at least 1, not {getattr(self, name)}")
        at_least_0 = ("audio_dim", "reference_dim", "flame_dim", "text_dim", "audio_past", "audio_future")
        for name in (*at_least_0, "one_level_frames"):
            _require(getattr(self, name) >= 0, f"{name} must not be negative, but is {getattr(self, name)}")
        _require(self.gate_gain > 0, f"gate_gain must be positive, not {self.gate_gain}: a gate of 0 never opens")
        _require(
            self.video_size >= 16 and self.video_size % 16 == 0,
            f"video_size={self.video_size} must be a multiple of 16 pixels: the VAE's stride times the patch",
        )
        limit = self.sigma_structure_max
        _require(0 < limit <= 1, f"sigma_structure_max must lie in (0, 1], not {limit}")
        _require(
            not self.structure_text or self.text_dim > 0,
            "structure_text=True needs a text_dim above 0: there is no text to read",
        )
        _require(
            self.streams != "structure" or self.structure_text or self.text_dim == 0,
            "streams=structure with a text_dim above 0 needs structure_text=True: nothing else could read the text",
        )

    def _complete_contract(self) -> None:
        """Take plain values as they come from JSON, and the audio encoder's own pooling where none is stated."""
        hashes = self.encoder_hashes
        pairs = hashes.items() if isinstance(hashes, Mapping) else hashes
        object.__setattr__(self, "encoder_hashes", tuple(sorted((str(role), str(sha)) for role, sha in pairs)))
        if self.audio_pool is None:
            object.__setattr__(self, "audio_pool", audio_pool(self.audio_encoder))
        _one_of("audio_pool", self.audio_pool, get_args(AudioPool))
        _one_of("structure_given", self.structure_given, get_args(StructureGiven))
        object.__setattr__(self, "given_fields", tuple(tuple(map(str, group)) for group in self.given_fields))
        layout = self.structure_layout
        if isinstance(layout, Mapping):
            layout = StructureLayout.from_dict(layout)
            object.__setattr__(self, "structure_layout", layout)
        _require(
            layout is None or layout.dim == self.structure_dim,
            f"structure_dim={self.structure_dim}, but the structure vectors are {layout}: {layout and layout.dim} wide",
        )
        _require(
            not self.given_fields or self.structure_known,
            "given_fields needs structure_known=true (model.overrides.structure_known=true): a model without it is not "
            "told which entries of a noisy frame are given",
        )

    def encoder_hash(self, role: str) -> str | None:
        """Return the sha256 of the weights of a role's encoder in training; None if it is not known."""
        return dict(self.encoder_hashes).get(role)

    def _check_exchange(self) -> None:
        depths = {"num_layers": self.num_layers} if self.has_video else {}
        depths |= {"structure_layers": self.structure_layers} if self.has_structure else {}
        deepest = min(depths.values())
        told = ", ".join(f"{name}={depth}" for name, depth in depths.items())
        _require(
            0 <= self.fusion_depth <= deepest,
            f"fusion_depth={self.fusion_depth} must lie between 0 and {deepest}, the number of layers that "
            f"{'both towers have' if len(depths) == 2 else 'the tower has'} ({told})",
        )
        for name, options in (("bridge_direction", BridgeDirection), ("bridge_mask", BridgeMask)):
            _one_of(name, getattr(self, name), get_args(options))
        for part in ("bridge", "audio"):
            _check_heads(
                f"{part}_width", getattr(self, f"{part}_width"), f"{part}_heads", getattr(self, f"{part}_heads")
            )

    @property
    def video(self) -> VideoDiTConfig:
        """The video tower's configuration: noisy latent, 4 mask channels and the reference latent come in."""
        return VideoDiTConfig(
            dim=self.dim,
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            ffn_dim=self.ffn_dim,
            in_dim=2 * self.latent_channels + 4,
            out_dim=self.latent_channels,
            patch_size=self.patch_size,
            text_dim=self.text_dim,
            freq_dim=self.freq_dim,
            reference=self.reference_dim > 0,
            rope_theta=self.rope_theta,
            eps=self.eps,
        )

    @property
    def has_video(self) -> bool:
        """Whether the model denoises video."""
        return self.streams != "structure"

    @property
    def has_structure(self) -> bool:
        """Whether the model denoises structure."""
        return self.streams != "video"

    @property
    def stream_channels(self) -> int:
        """Channels of the video stream: ``latent_channels``, 0 without it."""
        return self.latent_channels if self.has_video else 0

    @property
    def stream_entries(self) -> int:
        """Entries of a vector of the structure stream: ``structure_dim``, 0 without it."""
        return self.structure_dim if self.has_structure else 0

    @property
    def reads_reference(self) -> bool:
        """Whether reference tokens are read: by the video tower, if ``reference_dim`` is above 0."""
        return self.has_video and self.reference_dim > 0

    @property
    def reads_flame(self) -> bool:
        """Whether there is a FLAME head: on the structure, if ``flame_dim`` is above 0."""
        return self.has_structure and self.flame_dim > 0

    @property
    def hears(self) -> bool:
        """Whether audio reaches the towers."""
        return self.fusion_depth > 0 and self.audio_dim > 0

    @property
    def fusion_layers(self) -> int:
        """Layers that exchange something: ``fusion_depth``, 0 for a model that neither hears nor has a bridge."""
        return self.fusion_depth if self.hears or self.bridge_to_video else 0

    @property
    def bridge_to_video(self) -> bool:
        """Whether video reads structure."""
        return self.streams == "both" and self.fusion_depth > 0 and self.bridge_direction != "none"

    @property
    def bridge_to_structure(self) -> bool:
        """Whether structure reads video."""
        return self.bridge_to_video and self.bridge_direction == "both"

    @property
    def causal_bridge(self) -> bool:
        """Whether the bridge reaches past frames, so that a cache keeps them for it."""
        return self.bridge_to_video and self.bridge_mask == "causal"

    @property
    def structure(self) -> StructureDiTConfig:
        """The structure tower's configuration."""
        return StructureDiTConfig(
            dim=self.structure_width,
            num_layers=self.structure_layers,
            num_heads=self.structure_heads,
            ffn_dim=self.structure_ffn_dim,
            vector_dim=self.structure_dim,
            known=self.structure_known,
            text_dim=self.text_dim if self.structure_text else 0,
            freq_dim=self.freq_dim,
            rope_theta=self.rope_theta,
            eps=self.eps,
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DualForceConfig:
        """Build a configuration from plain values; errors as in :func:`config_from_dict`."""
        return config_from_dict(cls, values)


_KINDS: dict[str, tuple[type | tuple[type, ...], str]] = {
    "int": (Integral, "a whole number"),
    "float": (Real, "a number"),
    "float | None": ((Real, type(None)), "a number or None"),
    "str": (str, "text"),
    "bool": (bool, "True or False"),
}

ConfigT = TypeVar("ConfigT", bound="DualForceConfig | VideoDiTConfig | StructureDiTConfig")


def check_names(kind: type[ConfigT], values: Iterable[str]) -> None:
    """Refuse what a configuration has no field for.

    Raises:
        UserError: naming the first, and the nearest right one.
    """
    names = [field.name for field in fields(kind)]
    for name in values:
        if name not in names:
            raise UserError(f"a model has no setting {name!r}{nearest(name, names)}")


def config_from_dict(kind: type[ConfigT], values: Mapping[str, Any]) -> ConfigT:
    """Build a configuration from plain values.

    Raises:
        UserError: a name is unknown (the nearest right one is told), one is missing, or a value does not fit.
    """
    check_names(kind, values)
    try:
        return kind(**values)
    except TypeError as error:
        raise UserError(f"a setting is missing or has the wrong type: {error}") from error


def _check_types(config: VideoDiTConfig | StructureDiTConfig | DualForceConfig) -> None:
    """Raise UserError unless every number, text and switch is one; numpy's numbers are numbers too."""
    for field in fields(config):
        kinds, words = _KINDS.get(str(field.type), (object, ""))
        value = getattr(config, field.name)
        fits = isinstance(value, kinds) and (kinds in (bool, object) or not isinstance(value, bool))
        _require(fits, f"{field.name} must be {words}, not {value!r}")


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise UserError(message)


def _one_of(name: str, value: object, options: tuple[str, ...]) -> None:
    _require(value in options, f"{name}={value!r} is none of {', '.join(options)}{nearest(str(value), options)}")


def _check_heads(width_name: str, width: int, heads_name: str, heads: int) -> None:
    _require(width >= 1 and heads >= 1, f"{width_name} and {heads_name} must be positive, not {width} and {heads}")
    _require(width % heads == 0, f"{width_name}={width} must be a multiple of {heads_name}={heads}")
    _require(
        (width // heads) % 2 == 0,
        f"{width_name} / {heads_name} = {width // heads} must be even: rotary positions turn pairs",
    )


def _check_tower(prefix: str, tower: VideoDiTConfig | StructureDiTConfig) -> None:
    width_name = "structure_width" if prefix else "dim"
    heads_name = "structure_heads" if prefix else "num_heads"
    _check_heads(width_name, tower.dim, heads_name, tower.num_heads)
    depth_name = "structure_layers" if prefix else "num_layers"
    _require(tower.num_layers >= 1, f"{depth_name} must be at least 1, not {tower.num_layers}")
    _require(tower.ffn_dim >= 1, f"{prefix}ffn_dim must be at least 1, not {tower.ffn_dim}")
    _require(
        tower.freq_dim >= 2 and tower.freq_dim % 2 == 0, f"freq_dim must be even and positive, not {tower.freq_dim}"
    )
    _require(tower.rope_theta > 1, f"rope_theta must be above 1, not {tower.rope_theta}")
    _require(tower.eps > 0, f"eps must be positive, not {tower.eps}")
