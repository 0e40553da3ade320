"""Flow matching with a noise level per latent frame: pure functions, usable with any model."""

from df_models.flow.error_bank import ErrorBank
from df_models.flow.history import HistoryConfig, HistoryMode, Sigmas, sample_sigmas
from df_models.flow.noise import keyed_generator, keyed_noise
from df_models.flow.schedule import (
    clean_from_velocity,
    expand_sigma,
    inference_sigmas,
    interpolate,
    noise_from_velocity,
    shift_sigma,
    unshift_sigma,
    velocity_target,
)
from df_models.flow.solver import euler_step, guided, heun_step, integrate

__all__ = [
    "ErrorBank",
    "HistoryConfig",
    "HistoryMode",
    "Sigmas",
    "clean_from_velocity",
    "euler_step",
    "expand_sigma",
    "guided",
    "heun_step",
    "inference_sigmas",
    "integrate",
    "interpolate",
    "keyed_generator",
    "keyed_noise",
    "noise_from_velocity",
    "sample_sigmas",
    "shift_sigma",
    "unshift_sigma",
    "velocity_target",
]
