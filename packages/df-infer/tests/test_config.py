import pytest

from df_infer.config import RolloutChanges, RolloutConfig
from df_models.errors import UserError
from df_models.settings import dump_config, load_config, validate_config


def test_names_the_nearest_setting() -> None:
    with pytest.raises(UserError, match="did you mean 'struct_start'"):
        validate_config(RolloutConfig, {"structstart": "noise"})


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"steps": 0}, "steps"),
        ({"steps": 2.5}, "steps"),
        ({"steps": None}, "steps"),
        ({"structure_steps": 13, "steps": 12}, "structure_steps"),
        ({"shift": 0.0}, "shift"),
        ({"shift": "abc"}, "shift"),
        ({"shift": float("nan")}, "shift"),
        ({"structure_shift": -1.0}, "structure_shift"),
        ({"solver": "rk4"}, "solver"),
        ({"start": "image"}, "start"),
        ({"struct_start": "mean"}, "struct_start"),
        ({"window": 1, "chunk": 2}, "window"),
        ({"sinks": -1}, "sinks"),
        ({"audio_future": -1}, "audio_future"),
        ({"context_noise": 1.0}, "context_noise"),
        ({"audio_guidance": -0.5}, "audio_guidance"),
    ],
)
def test_a_wrong_value_is_named_in_one_line(values: dict, named: str) -> None:
    with pytest.raises(UserError, match=f"^config: {named}[:=][^\n]*$"):
        validate_config(RolloutConfig, values)


def test_changes_are_what_was_given_and_no_more(tmp_path) -> None:
    base = RolloutConfig(steps=20, structure_steps=10, window=4)
    changes = load_config(RolloutChanges, None, ["structure_steps=null", "window=8"])
    assert changes.applied_to(base) == RolloutConfig(steps=20, window=8)
    assert RolloutChanges().applied_to(base) == base
    path = tmp_path / "changes.yaml"
    path.write_text(dump_config(changes))
    assert load_config(RolloutChanges, path) == changes
    assert path.read_text() == "structure_steps: null\nwindow: 8\n"


def test_changes_that_do_not_fit_the_run_are_refused() -> None:
    with pytest.raises(UserError, match=r"rollout: structure_steps=10 must not be above steps=8"):
        RolloutChanges(steps=8).applied_to(RolloutConfig(steps=20, structure_steps=10))
