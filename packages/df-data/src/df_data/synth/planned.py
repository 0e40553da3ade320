"""What a corpus that is still to be made will say of itself; apart from the code that makes it (numba)."""

from __future__ import annotations

from df_data.build.encode import Encoders
from df_data.format.manifest import Manifest, features_of, structure_layout
from df_data.synth.config import SynthConfig


def planned_manifest(config: SynthConfig) -> Manifest:
    """Return the manifest that the training split will have, but for what only its clips tell: it lists no shard.

    Raises:
        UserError: an encoder is missing.
    """
    encoders = Encoders.load(config.video_vae, config.audio_encoder, config.reference_encoder)
    assert encoders.audio is not None
    widths = {"audio": encoders.audio.dim, "reference": encoders.reference.dim}
    records = encoders.records()
    return Manifest(
        split="train",
        build="planned",
        num_shards=1,
        height=config.size,
        width=config.size,
        encoders=records,
        structure_vectors=structure_layout(None),
        features=features_of(widths, records),
    )
