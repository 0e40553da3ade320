"""What the model is said to cost is what it costs."""

from __future__ import annotations

import pytest
from torch.utils.flop_counter import FlopCounterMode

from df_models import preset_config, presets
from df_models.attention.masks import FrameLayout
from df_models.cli import main
from df_models.model.describe import Workload, count_cache_bytes, count_flops, count_parameters, describe, latency_of
from df_models.model.dualforce import History
from df_models.model.flops import BACKWARD, clip_flops, training_flops, video_tokens
from df_models.time import SLOTS


@pytest.mark.parametrize("options", [{}, {"bridge_mask": "causal"}, {"bridge_direction": "struct_to_video"}])
@pytest.mark.parametrize("preset", presets())
def test_operations_and_cache_equal_what_is_counted(build, make_clip, preset, options):
    model = build(preset, reference_tokens=7, **options).bfloat16()
    workload = Workload(size=64, window=4, sinks=2)
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


@pytest.mark.parametrize("history", [False, True])
@pytest.mark.parametrize("options", [{}, {"bridge_mask": "causal"}, {"structure_text": True}])
@pytest.mark.parametrize("preset", ["quickstart", "dualforce-wan"])
def test_operations_of_a_clip_are_those_counted_without_what_the_mask_hides(build, make_clip, preset, options, history):
    if options.get("structure_text") and preset == "quickstart":
        options = {"text_dim": 24, "structure_text": True}
    model = build(preset, reference_tokens=7, **options)
    frames, (rows, columns) = 3, (8, 8)
    clip = make_clip(model, frames=frames, batch=1, size=(rows, columns))
    layout = FrameLayout.clip(frames)
    if history:
        layout = FrameLayout.teacher_forcing(frames)
        clip["history"] = History(*(clip[name] for name in ("video", "structure", "sigma_video", "sigma_structure")))
    with FlopCounterMode(display=False) as counter:
        velocity = model(**clip)
        model.predict_flame(velocity.structure)
        forward = counter.get_total_flops()
        (velocity.video.square().mean() + velocity.structure.square().mean()).backward()
    config = model.config
    tokens = video_tokens(config, rows, columns)
    features = clip["reference_tokens"].shape[1] if config.reference_dim else 0
    seen = frames * (frames + 1) // 2 if not history else frames * (frames + 1)
    pairs = tokens**2 * config.dim * config.num_layers + SLOTS**2 * config.structure_width * config.structure_layers
    if config.causal_bridge:
        pairs += 2 * tokens * SLOTS * config.bridge_width * config.fusion_depth
    hidden = 2 * 2 * (len(layout) ** 2 - seen) * pairs
    assert clip_flops(config, layout, tokens, features=features, flame=True) == forward - hidden
    whole = training_flops(config, layout, tokens, features=features) + (1 + BACKWARD) * hidden
    # torch counts the scores that attention computes again for its gradient, and none for those of inputs
    assert whole == pytest.approx(counter.get_total_flops(), rel=0.1)


PINNED = {
    "quickstart": ((9_442_880, 564_934, 659_200, 1_059_648, 209_024, 29_599), (51_829, 4, 1_083, 544)),
    "poc": ((117_970_240, 22_502_086, 14_195_712, 24_059_136, 926_976, 59_039), (551_769, 175, 19_466, 9_795)),
    "dualforce-1.5b": (
        (876_105_280, 583_899_718, 151_142_400, 83_525_376, 3_294_208, 117_919),
        (2_579_682, 4_583, 155_625, 39_111),
    ),
    "dualforce-wan": (
        (1_049_176_640, 65_134_150, 33_611_776, 70_917_888, 3_294_208, 117_919),
        (2_934_017, 514, 51_741, 39_011),
    ),
}
"""Parameters of video, structure, bridge, audio, reference and FLAME; MFLOP per latent frame of 512 x 512 of the first
four, with a window of 8 and 1 sink."""


@pytest.mark.parametrize("preset", presets())
def test_the_tables_are_pinned(preset):
    description = describe(preset_config(preset), Workload())
    parameters = tuple(description.parameters.values())
    flops = tuple(round(count / 1e6) for count in description.flops.values())
    assert (parameters, flops) == PINNED[preset]


def test_weights_to_run_are_what_a_model_in_bfloat16_takes(build):
    model = build().bfloat16()
    taken = sum(p.numel() * p.element_size() for p in model.parameters())
    assert describe(model.config, Workload()).weights_bytes == taken


def test_the_large_preset_fits_one_card():
    description = describe(preset_config("dualforce-1.5b"), Workload())
    assert 1.5e9 < description.total_parameters < 1.8e9
    assert description.training.peak < 50e9


def test_the_command_prints_a_table(capsys):
    assert main(["describe", "quickstart", "--size", "64", "num_layers=2", "fusion_depth=2"]) == 0
    text = capsys.readouterr().out
    assert "video tower" in text and "To train: " in text
    assert "Latency before computing: 0.32 s = chunk 0.16 s + audio_future 0.16 s + logmel 0.00 s" in text
    assert main(["presets"]) == 0
    assert capsys.readouterr().out.split() == list(presets())


def test_latency_counts_what_the_audio_encoder_waits_for():
    assert latency_of(preset_config("quickstart"), chunk=2).total == pytest.approx(0.32 + 0.16 + 0.0025)
    assert latency_of(preset_config("poc")).total == pytest.approx(0.16 + 0.16 + 5.9625)
    longer = latency_of(preset_config("poc", audio_encoder="hubert-large@8+2"))
    assert longer.total == pytest.approx(0.32 + 9.9625) and "hubert-large@8+2 9.96 s" in str(longer)
    assert latency_of(preset_config("quickstart"), audio_future=1).total == pytest.approx(0.16 + 0.04 + 0.0025)
    assert latency_of(preset_config("quickstart"), audio_future=0).future == 0.0
    whole = latency_of(preset_config("quickstart", audio_encoder="somebodys"))
    assert whole.total is None and "the whole recording, as somebodys states no lookahead" in str(whole)


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
