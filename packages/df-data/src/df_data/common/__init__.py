"""Small helpers that know nothing of videos: hashes, processes, locks, timing, wording."""
