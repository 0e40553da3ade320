"""The clips that a run is trained on, and how they fit the model."""
