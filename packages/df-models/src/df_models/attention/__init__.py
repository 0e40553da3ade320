"""The one attention interface of the model, its masks and its rotary positions."""

from df_models.attention.backends import AttentionBackend, Mask, attention, biased_attention, frame_attention

__all__ = ["AttentionBackend", "Mask", "attention", "biased_attention", "frame_attention"]
