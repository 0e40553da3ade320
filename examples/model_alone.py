"""df-models alone: the dual model, one denoising call, saved and loaded again.

    uv run python examples/model_alone.py

Needs ``pip install df-models`` and nothing else of this repository.
"""

import tempfile

import torch

from df_models import DualForce

model = DualForce.from_preset("quickstart")
config, T = model.config, 9  # nine latent frames: 33 pixel frames
velocity = model(
    video=torch.randn(1, T, 16, 8, 8),
    structure=torch.randn(1, T, 4, config.structure_dim),
    audio=torch.randn(1, T, 4, config.audio_dim),
    sigma_video=torch.rand(1, T),  # every latent frame of each stream has its own noise level
    sigma_structure=torch.rand(1, T),
    reference_latent=torch.randn(1, 16, 8, 8),
)
print("velocity of video", tuple(velocity.video.shape), "and of structure", tuple(velocity.structure.shape))
with tempfile.TemporaryDirectory() as folder:
    model.save_pretrained(folder)
    print(f"{sum(p.numel() for p in DualForce.from_pretrained(folder).parameters()):,} parameters, saved and loaded")
