"""Video VAEs, whole and in streams."""
