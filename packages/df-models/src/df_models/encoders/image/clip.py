"""The image half of CLIP (Radford et al. 2021), by transformers' ``CLIPVisionModel``.

The tokens come from the layer before the last, as Wan's image-to-video models take them: Wan-Video/Wan2.1 leaves the
last block out (``wan/modules/clip.py``, ``use_31_block``), diffusers reads ``hidden_states[-2]``
(``pipeline_wan_i2v.py``). The last layer only serves the image's own token, and is dropped from memory here.

``clip-vit-h`` is the image encoder of Wan's: the tower of open_clip's "ViT-H/14 xlm roberta large", which Wan ships,
was frozen at that of the English ViT-H/14 of LAION-2B while its text half was trained (mlfoundations/open_clip,
``docs/PRETRAINED.md``). 257 tokens of width 1280; ``clip-vit-l`` (patch 14) has 257 of 1024, ``clip-vit-b`` (patch 16)
197 of 768.
"""

from __future__ import annotations

from df_models.encoders.image.images import ImageEncoder
from df_models.encoders.pretrained import PREPROCESSOR, find_checkpoint, load_model
from df_models.encoders.registry import origin_of
from df_models.encoders.weights import require_files

KINDS = ("clip", "clip_vision_model")
UNUSED = (
    r"text_model\..*",
    r"text_projection\.weight",
    r"visual_projection\.weight",
    r"logit_scale",
    r"(.*\.)?position_ids",
)
"""The text half, the projections to the space that both halves share, and buffers that old versions wrote."""


def load(name: str, location: str | None) -> ImageEncoder:
    """Load ``clip-vit-b``, ``-l`` or ``-h``, or a checkpoint of that form (a whole CLIP or its image half).

    Raises:
        UserError: a file is missing or damaged, or holds another model.
    """
    origin = origin_of(name)
    directory = find_checkpoint(origin, location)
    from transformers import CLIPVisionModel

    require_files(origin, directory, (PREPROCESSOR,))
    module, sha256 = load_model(origin, directory, CLIPVisionModel, KINDS, unused=UNUSED)
    tower = getattr(module, "vision_model", module)  # a module of its own until version 5
    del tower.encoder.layers[-1]
    size = int(module.config.image_size)
    return ImageEncoder(module, origin, sha256, size=size, preprocessor=directory / PREPROCESSOR)
