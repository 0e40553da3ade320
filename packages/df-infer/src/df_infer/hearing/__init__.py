"""From a wave to what the model hears."""
