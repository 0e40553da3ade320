"""The recipe of the embedded video VAE."""
