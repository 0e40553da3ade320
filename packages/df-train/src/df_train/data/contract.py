"""What a model takes over from its dataset, and which datasets it refuses.

The dataset's manifest says what its features and vectors are: which encoders made them, how wide they are, how audio is
pooled, what the numbers of a structure vector mean. A new model takes all of that from there, carries it in its own
configuration, and `df-infer` and `df-eval` hold the encoders that they load against it. A trained model keeps what it
was trained with and refuses a dataset that differs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from df_data.format.manifest import Features, Manifest, structure_of
from df_data.format.sample import EncoderRecord
from df_data.reading.batch import StructureSource
from df_models import DualForceConfig
from df_models.encoders import AudioPool, VideoVAE, encoder_id, load_video_vae
from df_models.encoders.weights import split_spec
from df_models.errors import UserError
from df_models.structure import require_same
from df_models.time import pooled_width
from df_train.config import TrainConfig
from df_train.data.lengths import longest_clip
from df_train.data.text import ROLE as TEXT
from df_train.data.text import check_text
from df_train.tasks import TASKS

ROLES = ("audio", "reference", TEXT)
HASHED = ("video_vae", *ROLES)
"""Whose weights a model knows by their hash."""
TOLD = ("structure_given", "given_fields", "one_level_frames")
"""What a model says of its training to those who generate with it."""
FREE = ("video_size", "face_crop", "speech_level", *TOLD)
"""What a trained model may be given otherwise than it was trained with: it takes any size, crop and level, and is used
to those it heard and saw last."""
KEPT = (
    "structure_layout",
    "audio_pool",
    *(f"{role}_{what}" for role in ROLES for what in ("encoder", "dim")),
)
"""What a checkpoint may not be continued with otherwise."""


_FIELDS = {
    "video": ("video_vae",),
    "audio": ("audio_encoder", "audio_dim", "audio_pool", "speech_level"),
    "structure": ("structure_layout", "structure_dim"),
    "reference": ("reference_encoder", "reference_dim"),
    TEXT: ("text_encoder", "text_dim"),
}
"""Fields that a dataset decides, by the part of the model that they are about."""


def decided_by(config: TrainConfig, manifest: Manifest) -> dict[str, Any]:
    """The fields of a model's configuration that a run decides: what it takes from its dataset, and :data:`TOLD`.

    Args:
        manifest: of the training split, or what it will be (`df_data.synth.planned`).
    """
    data = taken_over(manifest, config.model.overrides, config.data.structure)
    left = [name for role in TASKS[config.task].leaves for name in _FIELDS[role]]
    hashes = {
        role: sha for role, sha in data.get("encoder_hashes", {}).items() if role not in TASKS[config.task].leaves
    }
    data = {name: value for name, value in data.items() if name not in left}
    return data | {"encoder_hashes": hashes} | told_of(config, manifest)


def told_of(config: TrainConfig, manifest: Manifest) -> dict[str, Any]:
    """What the model will say of this training (:data:`TOLD`)."""
    objective = config.objective
    given = {0.0: "never", 1.0: "always"}.get(objective.give_structure, "sometimes")
    fields = objective.give_fields.fields if objective.give_fields.share > 0 else ()
    longest = longest_clip(config.data, manifest) if objective.history.mode == "one_level" else 0
    return dict(zip(TOLD, (given, fields, longest), strict=True))


def taken_over(
    manifest: Manifest, stated: Mapping[str, Any] | None = None, structure: StructureSource = "structure"
) -> dict[str, Any]:
    """The fields of a model's configuration that its dataset decides.

    Args:
        stated: `model.overrides`, which win over them (`check_fit` then refuses what does not fit). An `audio_dim`
            among them decides the pooling, if no `audio_pool` does.
        structure: which of the dataset's vectors the structure stream is.
    """
    fields: dict[str, Any] = {"video_size": manifest.height, "face_crop": manifest.crop}
    vae = manifest.encoders.get("video_vae")
    if vae is not None:
        fields["video_vae"] = vae.id
    for role in ROLES:
        if role in manifest.encoders:
            fields[f"{role}_encoder"] = encoder_id(role, manifest.encoders[role].id)  # type: ignore[arg-type]
        if role in manifest.features:
            fields[f"{role}_dim"] = manifest.features[role].dim
    audio = manifest.features.get("audio")
    if audio is not None:
        pool = _pooling(audio, stated or {})
        fields |= {"audio_pool": pool, "audio_dim": pooled_width(audio.dim, pool)}
    layout = structure_of(manifest, structure)
    if layout is not None:
        fields |= {"structure_layout": layout, "structure_dim": layout.dim}
    if manifest.speech_level is not None:
        fields["speech_level"] = manifest.speech_level
    hashes = {role: manifest.encoders[role].sha256 for role in HASHED if role in manifest.encoders}
    return fields | {"encoder_hashes": hashes}


def _pooling(audio: Features, stated: Mapping[str, Any]) -> AudioPool:
    if "audio_pool" in stated:
        return stated["audio_pool"]
    width = stated.get("audio_dim")
    own: AudioPool = audio.pool or "mean"
    if width == pooled_width(audio.dim, own):
        return own
    if width == audio.dim:
        return "mean"
    return "concat" if width == 2 * audio.dim else own


def kept_of(
    saved: DualForceConfig, parts: Collection[str], trained: bool, decided: Mapping[str, Any]
) -> dict[str, Any]:
    """What is decided of a model that begins with parts of a saved one.

    Of a trained model, what is taken keeps what it was trained with; :data:`FREE`, what it does not know of itself,
    and what parts that start afresh read come from the dataset.

    Args:
        parts: of the saved model that are taken (`df_train.begin.PARTS`).
    """
    if not trained:
        return dict(decided)
    own = {
        name: value
        for part, names in _FIELDS.items()
        if part in parts
        for name in names
        if name not in FREE and (value := getattr(saved, name)) is not None
    }
    roles = {"video_vae" if part == "video" else part for part in parts}
    hashes = {role: sha for role, sha in saved.encoder_hashes if role in roles}
    return {**decided, **own, "encoder_hashes": {**dict(decided.get("encoder_hashes", {})), **hashes}}


def check_vae(vae: VideoVAE, manifest: Manifest) -> None:
    """Refuse a video VAE that bears the name of the one that made the dataset's latents and is another.

    Raises:
        UserError: their hashes differ.
    """
    record = manifest.encoders.get("video_vae")
    if record is not None and record.sha256 != vae.sha256:
        raise UserError(
            f"the dataset's latents were made by another {record.id} (sha256 {record.sha256[:12]}) than is there now "
            f"({vae.sha256[:12]}); build the dataset again"
        )


def check_fit(model: DualForceConfig, manifest: Manifest, structure: StructureSource = "structure") -> None:
    """Refuse a dataset whose latents, features or structure vectors are not the ones that the model is for.

    A video VAE under another name (a directory that was moved) is compared by its hash.

    Args:
        structure: which of the dataset's vectors the structure stream is (`data.structure`).

    Raises:
        UserError: naming both sides and how to mend it.
    """
    check_text(model, manifest)
    _check_vae(model, manifest)
    reads = {"audio": model.audio_dim > 0, "reference": model.reads_reference, TEXT: model.text_dim > 0}
    for role in ROLES:
        if reads[role]:
            _check_encoder(model, manifest, role)
    if not manifest.has_faces and (model.has_structure or model.audio_dim):
        lacks = "structure" if model.has_structure else "audio"
        raise UserError(f"the dataset holds general video, without {lacks}; train the video tower on it (task=video)")
    _check_widths(model, manifest.features)
    if not model.has_structure:
        return
    require_same(model.structure_layout, structure_of(manifest, structure), ("the model", "the dataset"))


def _check_vae(model: DualForceConfig, manifest: Manifest) -> None:
    record, name = manifest.encoders.get("video_vae"), model.video_vae
    if record is None:
        return
    if record.id not in (name, split_spec(name)[0]) and load_video_vae(name).sha256 != record.sha256:
        raise UserError(_differs("video_vae", record.id, name, "video_vae"))
    _check_hash(model, "video_vae", record, "latents")


def _check_encoder(model: DualForceConfig, manifest: Manifest, role: str) -> None:
    record, name = manifest.encoders.get(role), getattr(model, f"{role}_encoder")
    if record is None:
        return
    if encoder_id(role, record.id) != encoder_id(role, name):  # type: ignore[arg-type]
        raise UserError(_differs(role, record.id, name, f"{role}_encoder"))
    _check_hash(model, role, record, f"{role} features")


def _check_hash(model: DualForceConfig, role: str, record: EncoderRecord, what: str) -> None:
    known = model.encoder_hash(role)
    if known is not None and known != record.sha256:
        raise UserError(
            f"the dataset's {what} were made by another {record.id} (sha256 {record.sha256[:12]}) than those "
            f"that the model was trained on ({known[:12]}); build the dataset with the model's"
        )


def _differs(role: str, found: str, wanted: str, field: str) -> str:
    return (
        f"the dataset's {role} encoder is {found}, the model is for {wanted}; build the dataset with {wanted}, "
        f"or set model.overrides.{field}={found}"
    )


def _check_widths(model: DualForceConfig, features: Mapping[str, Features]) -> None:
    audio = features.get("audio")
    assert model.audio_pool is not None
    if audio is not None and model.audio_dim and pooled_width(audio.dim, model.audio_pool) != model.audio_dim:
        raise UserError(
            f"the dataset's audio features are {audio.dim} wide: a model's audio_dim is {audio.dim} with "
            f"audio_pool=mean and {2 * audio.dim} with concat, not {model.audio_dim} with {model.audio_pool}; leave "
            "both out of model.overrides to take the dataset's"
        )
    for role in ("reference", TEXT):
        width = getattr(model, f"{role}_dim")
        if role in features and width not in (0, features[role].dim):
            raise UserError(
                f"the dataset's {role} features are {features[role].dim} wide, the model's {role}_dim is {width}; set "
                f"model.overrides.{role}_dim={features[role].dim}"
            )


def check_continued(saved: Mapping[str, Any] | None, model: DualForceConfig) -> None:
    """Refuse to continue a checkpoint on a dataset that would make another model of it.

    Args:
        saved: the model's configuration in the checkpoint; None in one of before it was kept there.

    Raises:
        UserError: naming both sides.
    """
    if saved is None:
        return
    before = DualForceConfig.from_dict(saved)
    require_same(before.structure_layout, model.structure_layout, ("the checkpoint", "the dataset"))
    for name in KEPT:
        if getattr(before, name) != getattr(model, name):
            raise UserError(
                f"the checkpoint was trained with {name}={getattr(before, name)}, the dataset now makes it "
                f"{getattr(model, name)}; give the dataset that the run began with, or say --fresh"
            )
    for role, known in before.encoder_hashes:
        now = model.encoder_hash(role)
        if now != known:
            raise UserError(
                f"the checkpoint was trained with another {role} (sha256 {known[:12]}) than the dataset's "
                f"({(now or 'none')[:12]}); give the dataset that the run began with, or say --fresh"
            )


def check_frozen(before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Refuse to continue a run with other frozen models (`Objective.frozen`) than it began with.

    Raises:
        UserError: naming the model.
    """
    for name in before.keys() | now.keys():
        if before.get(name) != now.get(name):
            raise UserError(
                f"the checkpoint was trained with another {name} (sha256 {before.get(name, 'none')[:12]}) than the one "
                f"that is there now ({now.get(name, 'none')[:12]}); give that one back, or say --fresh"
            )


def audio_note(manifest: Manifest) -> str | None:
    """Return a line for the user about a dataset of before an audio encoder's id said how much it hears at a time."""
    record = manifest.encoders.get("audio")
    if record is None or encoder_id("audio", record.id) == record.id:
        return None
    return (
        f"the dataset's audio features ({record.id}) were encoded over whole stretches; generation encodes them as "
        f"{encoder_id('audio', record.id)}, so that they differ a little: build the dataset again to have both alike"
    )
