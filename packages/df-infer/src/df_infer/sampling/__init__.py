"""How a latent frame is denoised: schedules, noise, what is given, the sampler of a chunk."""
