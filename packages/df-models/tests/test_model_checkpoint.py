"""A saved model comes back exactly; a broken or foreign one is refused in a sentence."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from df_models import DualForce, UserError
from df_models.encoders import load_video_vae
from df_models.model.pretrained import CONFIG_FILE, WEIGHTS_FILE


@pytest.fixture
def saved(build, tmp_path):
    model = build()
    model.set_structure_statistics(torch.arange(10.0), torch.arange(1.0, 11.0))
    model.save_pretrained(tmp_path / "model")
    return model, tmp_path / "model"


def test_a_saved_model_comes_back_exactly(saved, make_clip):
    model, path = saved
    again = DualForce.from_pretrained(path)
    assert again.config == model.config
    old, new = model.state_dict(), again.state_dict()
    assert old.keys() == new.keys() and all(torch.equal(old[name], new[name]) for name in old)
    assert torch.equal(again.structure_std, torch.arange(1.0, 11.0))
    clip = make_clip(model, 2)
    with torch.no_grad():
        assert torch.equal(model(**clip).video, again.eval()(**clip).video)
    assert all(parameter.requires_grad for parameter in again.parameters())
    assert sorted(file.name for file in path.iterdir()) == ["README.md", CONFIG_FILE, WEIGHTS_FILE]


def test_loading_draws_nothing_and_imports_no_compiler(saved):
    """The state of the generator would tell of any value drawn; the VAE's weights are not drawn either."""
    _, path = saved
    torch.manual_seed(3)
    wanted = torch.rand(3)
    torch.manual_seed(3)
    DualForce.from_pretrained(path)
    load_video_vae("df-tiny")
    assert torch.equal(torch.rand(3), wanted)
    run = (
        f"import sys; from df_models import DualForce; DualForce.from_pretrained({str(path)!r}); "
        "from df_models.encoders import load_video_vae; load_video_vae('df-tiny'); "
        "print([name for name in ('sympy', 'torch._dynamo', 'diffusers', 'transformers') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_model_is_loaded_in_another_dtype_and_saved_over(saved):
    model, path = saved
    half = DualForce.from_pretrained(path, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert torch.equal(half.structure_std, model.structure_std)
    half.save_pretrained(path)
    assert DualForce.from_pretrained(path).dtype == torch.bfloat16
    assert DualForce.from_pretrained(path, dtype="float32").dtype == torch.float32


@pytest.mark.parametrize("dtype", ["bfloat61", "int8", torch.int8, "Tensor"])
def test_a_dtype_that_is_none_is_refused(saved, dtype):
    with pytest.raises(UserError, match=f"dtype={dtype!r} is no floating-point type"):
        DualForce.from_pretrained(saved[1], dtype=dtype)


def _edit_header(path, **changes):
    header = json.loads((path / CONFIG_FILE).read_text())
    header.update(changes)
    (path / CONFIG_FILE).write_text(json.dumps(header))


def _truncate(path):
    weights = path / WEIGHTS_FILE
    weights.write_bytes(weights.read_bytes()[:-100])


def _flip(path):
    weights = path / WEIGHTS_FILE
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))


def _pickle(path):
    torch.save({"a": torch.zeros(1)}, path / WEIGHTS_FILE)


def _unknown_setting(path):
    config = json.loads((path / CONFIG_FILE).read_text())["config"]
    _edit_header(path, config={**config, "num_layer": 3})


def _other_width(path):
    config = json.loads((path / CONFIG_FILE).read_text())["config"]
    _edit_header(path, config={**config, "ffn_dim": 80})


def _other_depth(path):
    config = json.loads((path / CONFIG_FILE).read_text())["config"]
    _edit_header(path, config={**config, "num_layers": 4})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_truncate, "truncated or no safetensors"),
        (_flip, "sha256 differs"),
        (_pickle, "truncated or no safetensors"),
        (_unknown_setting, "did you mean 'num_layers'"),
        (_other_width, r"ffn.0.weight is \[64, 48\], not \[80, 48\]"),
        (_other_depth, "tensors missing"),
        (lambda path: (path / WEIGHTS_FILE).unlink(), "holds no model.safetensors"),
        (lambda path: (path / CONFIG_FILE).unlink(), "no saved DualForce model"),
        (lambda path: (path / CONFIG_FILE).write_text("{"), "is damaged"),
        (lambda path: _edit_header(path, model_type="bert"), "another class or library"),
        (lambda path: _edit_header(path, format=99), "has format 99"),
        (lambda path: _edit_header(path, config=None), "has no configuration"),
        (lambda path: _edit_header(path, weights_sha256=None), "no hash"),
    ],
)
def test_a_damaged_or_foreign_model_is_refused(saved, damage, message):
    _, path = saved
    damage(path)
    with pytest.raises(UserError, match=message):
        DualForce.from_pretrained(path)


def test_foreign_weights_are_refused_by_name(saved):
    _, path = saved
    weights = load_file(path / WEIGHTS_FILE)
    weights["stranger"] = torch.zeros(1)
    save_file(weights, path / WEIGHTS_FILE)
    from df_models.files import sha256_file

    _edit_header(path, weights_sha256=sha256_file(path / WEIGHTS_FILE))
    with pytest.raises(UserError, match="stranger is unknown"):
        DualForce.from_pretrained(path)


def test_a_path_that_is_no_model_is_told(tmp_path):
    with pytest.raises(UserError, match="no Hub id"):
        DualForce.from_pretrained(tmp_path / "nothing" / "here")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is a file"):
        DualForce.from_pretrained(tmp_path / "file")


def test_a_model_comes_from_the_hub(saved, monkeypatch, tmp_path):
    import huggingface_hub

    model, path = saved
    asked = {}

    def fetch(name, revision, allow_patterns, **_options):
        asked.update(name=name, revision=revision, patterns=allow_patterns)
        return str(path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    monkeypatch.chdir(tmp_path)
    again = DualForce.from_pretrained("someone/dualforce", revision="v1")
    assert again.config == model.config
    assert asked == {"name": "someone/dualforce", "revision": "v1", "patterns": [CONFIG_FILE, WEIGHTS_FILE]}


def test_a_hub_that_does_not_answer_is_told(monkeypatch, tmp_path):
    import huggingface_hub

    def fail(*_args, **_options):
        raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"the Hub did not give it: no route"):
        DualForce.from_pretrained("someone/dualforce")
