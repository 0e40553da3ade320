"""Encoders of the reference image."""
