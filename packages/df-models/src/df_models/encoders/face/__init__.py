"""Networks that look at faces: detectors, head pose, structure, FLAME, lip sync."""
