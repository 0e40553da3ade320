import pytest

from df_infer.config import RolloutConfig
from df_models.errors import UserError


def test_reads_a_mapping() -> None:
    config = RolloutConfig.from_mapping({"steps": 4, "struct_start": "noise"})
    assert (config.steps, config.struct_start, config.window) == (4, "noise", RolloutConfig().window)


def test_names_the_nearest_setting() -> None:
    with pytest.raises(UserError, match="did you mean 'struct_start'"):
        RolloutConfig.from_mapping({"structstart": "noise"})


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"steps": 0}, "steps"),
        ({"steps": 2.5}, "steps"),
        ({"structure_steps": 13, "steps": 12}, "structure_steps"),
        ({"shift": 0.0}, "shift"),
        ({"structure_shift": -1.0}, "structure_shift"),
        ({"solver": "rk4"}, "solver"),
        ({"start": "image"}, "start"),
        ({"struct_start": "mean"}, "struct_start"),
        ({"window": 1, "chunk": 2}, "window"),
        ({"sinks": -1}, "sinks"),
        ({"context_noise": 1.0}, "context_noise"),
        ({"audio_guidance": -0.5}, "audio_guidance"),
    ],
)
def test_a_wrong_value_is_named(values: dict, named: str) -> None:
    with pytest.raises(UserError, match=f"rollout {named}="):
        RolloutConfig(**values)
