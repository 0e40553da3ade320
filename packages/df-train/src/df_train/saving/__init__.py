"""What a run leaves on the disk: checkpoints to resume from, and models to use."""
