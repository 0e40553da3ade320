"""Named protocols and their lists of clips."""
