"""DINOv2 (Oquab et al. 2023): self-supervised image features, by transformers' ``Dinov2Model``.

At 224 pixels a patch of 14 gives 16 x 16 patches; the position embeddings, trained at 518 pixels, are interpolated by
the model itself. Widths: small 384, base 768, large 1024. ``last_hidden_state`` stands after the last LayerNorm.

Shape legend: B batch, K = 1 + 256 tokens, D width.
"""

from __future__ import annotations

from df_models.encoders.image.images import ImageEncoder
from df_models.encoders.pretrained import PREPROCESSOR, find_checkpoint, load_model
from df_models.encoders.registry import origin_of
from df_models.encoders.weights import require_files

SIZE = 224
"""The ``crop_size`` of the checkpoints' preprocessor_config.json."""


def load(name: str, location: str | None) -> ImageEncoder:
    """Load ``dinov2-small``, ``-base`` or ``-large``, or a checkpoint of that form at a location.

    Raises:
        UserError: a file is missing or damaged, or holds another model.
    """
    origin = origin_of(name)
    directory = find_checkpoint(origin, location)
    from transformers import Dinov2Model

    require_files(origin, directory, (PREPROCESSOR,))
    module, sha256 = load_model(origin, directory, Dinov2Model, ("dinov2",))
    return ImageEncoder(module, origin, sha256, size=SIZE, preprocessor=directory / PREPROCESSOR)
