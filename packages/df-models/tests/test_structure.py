"""What a structure vector means, as it travels."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from df_models import DualForce, preset_config
from df_models.encoders.registry import ENTRIES
from df_models.errors import UserError
from df_models.structure import LIVEPORTRAIT_70, MEDIAPIPE_70, StructureField, StructureLayout, require_same

MEDIAPIPE = StructureLayout.of(MEDIAPIPE_70, "mediapipe", "a" * 64)
LIVEPORTRAIT = StructureLayout.of(LIVEPORTRAIT_70, "liveportrait", "b" * 64)


def test_it_survives_json() -> None:
    again = StructureLayout.from_dict(json.loads(json.dumps(MEDIAPIPE.to_dict())))
    assert again == MEDIAPIPE and hash(again) == hash(MEDIAPIPE)
    assert again.vector == MEDIAPIPE_70 and again.dim == 70
    with pytest.raises(UserError, match="no layout of structure vectors"):
        StructureLayout.from_dict({"name": "x", "fields": [["a"]]})


@pytest.mark.parametrize(
    "other",
    [
        LIVEPORTRAIT,
        replace(MEDIAPIPE, sha256="c" * 64),
        replace(MEDIAPIPE, fields=LIVEPORTRAIT.fields),
    ],
    ids=["encoder", "weights", "units"],
)
def test_another_meaning_is_refused_in_one_line_that_names_both(other: StructureLayout) -> None:
    require_same(MEDIAPIPE, MEDIAPIPE, ("the model", "the dataset"))
    require_same(None, MEDIAPIPE, ("the model", "the dataset"))
    with pytest.raises(UserError) as caught:
        require_same(MEDIAPIPE, other, ("the model", "the dataset"))
    message = str(caught.value)
    assert "\n" not in message and str(MEDIAPIPE) in message and str(other) in message
    assert "the model" in message and "the dataset" in message


def test_it_travels_with_a_model(build, tmp_path) -> None:
    base = build().config
    layout = StructureLayout("tiny", "somebody", "e", (StructureField("all", base.structure_dim, "1"),))
    model = DualForce(replace(base, structure_layout=layout, encoder_hashes={"audio": "d"}))
    model.save_pretrained(tmp_path)
    config = DualForce.from_pretrained(tmp_path).config
    assert config.structure_layout == layout
    assert (config.encoder_hash("audio"), config.encoder_hash("reference")) == ("d", None)


def test_a_model_of_another_width_cannot_have_it() -> None:
    with pytest.raises(UserError, match="structure_dim=69, but the structure vectors are mediapipe"):
        preset_config("quickstart", structure_dim=69, structure_layout=MEDIAPIPE)


def test_every_structure_encoder_states_fields_and_units() -> None:
    layouts = [entry.layout for entry in ENTRIES if entry.role == "structure"]
    assert len(layouts) == 3
    for layout in layouts:
        assert layout is not None and len(layout.units) == len(layout.fields) and all(layout.units)
    assert len({layout.units for layout in layouts if layout}) == 3, "their numbers mean different things"


def test_the_eyelids_are_named_like_a_field_where_the_layout_has_keypoints() -> None:
    layout = StructureLayout.of(LIVEPORTRAIT_70, "liveportrait", "0" * 64)
    lids = {name for name, one in zip(LIVEPORTRAIT_70.names, layout.entries(("eyelids",))) if one}
    assert lids == {f"expression[{3 * keypoint + axis}]" for keypoint in (13, 16, 18) for axis in range(3)}
    assert sum(layout.entries(("eyelids", "pitch"))) == 10
    with pytest.raises(UserError, match="no field 'eyelids'"):
        replace(layout, name="another").entries(("eyelids",))
