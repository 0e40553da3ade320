"""What the model is said to cost is what it costs."""

from __future__ import annotations

import pytest
from torch.utils.flop_counter import FlopCounterMode

from df_models import presets
from df_models.cli import main
from df_models.describe import Workload, count_cache_bytes, count_flops, count_parameters, describe


@pytest.mark.parametrize("options", [{}, {"bridge_mask": "causal"}, {"bridge_direction": "struct_to_video"}])
@pytest.mark.parametrize("preset", presets())
def test_operations_and_cache_equal_what_is_counted(build, make_clip, preset, options):
    model = build(preset, reference_tokens=7, **options).bfloat16()
    workload = Workload(size=64, window=4, sinks=2, text_tokens=9)
    clip = make_clip(model, frames=2, batch=1, size=(8, 8))
    names = [name for name in ("reference_latent", "reference_tokens", "text") if name in clip]
    cache = model.new_cache(1, 8, 8, workload.window, workload.sinks, **{name: clip[name] for name in names})
    streams = [clip[name][:, :1] for name in ("video", "structure")]
    sigmas = [clip[name][:, :1] for name in ("sigma_video", "sigma_structure")]
    with FlopCounterMode(display=False) as counter:
        model.step(*streams, clip["audio"], *sigmas, cache, frame=0, write=False)
    assert counter.get_total_flops() == sum(count_flops(model.config, workload).values())
    assert cache.bytes == count_cache_bytes(model.config, workload)
    assert sum(count_parameters(model).values()) == sum(p.numel() for p in model.parameters())


def test_the_large_preset_fits_one_card():
    from df_models import preset_config

    description = describe(preset_config("dualforce-1.5b"), Workload())
    assert 1.5e9 < description.total_parameters < 1.8e9
    assert description.training_bytes < 50e9


def test_the_command_prints_a_table(capsys):
    assert main(["describe", "quickstart", "--size", "64", "num_layers=2", "fusion_depth=2"]) == 0
    text = capsys.readouterr().out
    assert "video tower" in text and "To train: about" in text and "0.16 s ahead" in text
    assert main(["presets"]) == 0
    assert capsys.readouterr().out.split() == list(presets())


def test_the_command_describes_a_saved_model(build, tmp_path, capsys):
    build().save_pretrained(tmp_path)
    assert main(["describe", str(tmp_path), "--size", "64"]) == 0
    assert "video tower" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["quickstrt"], "did you mean 'quickstart'"),
        (["quickstart", "num_layer=3"], "did you mean 'num_layers'"),
        (["quickstart", "--size", "100"], "multiple of 16"),
        (["quickstart", "--window", "0"], "at least 1"),
        (["quickstart", "--frames", "34"], "not 1 + 4 n"),
    ],
)
def test_the_command_tells_mistakes_in_one_line(capsys, arguments, message):
    assert main(["describe", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
