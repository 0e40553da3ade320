"""Losses of held-out clips, shown to every run in the same way."""
