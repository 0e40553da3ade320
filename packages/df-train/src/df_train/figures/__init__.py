"""What a run tells about itself: losses, speed, traces."""
