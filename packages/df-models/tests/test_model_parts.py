"""Masks, rotary positions, norms and attention by themselves."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
import torch.nn.functional as F

from df_models.attention.backends import attention, biased_attention, frame_attention
from df_models.attention.masks import (
    EMPTY,
    BlockMasks,
    FrameLayout,
    additive_mask,
    block_mask,
    causal_table,
    window_positions,
    window_table,
)
from df_models.attention.rope import pair_split, rotate, time_table, video_table
from df_models.model.layers import Gate
from df_models.model.norm import RMSNorm
from df_models.model.tower import sinusoid

CPU = torch.device("cpu")


def test_a_clip_sees_itself_and_its_past():
    assert causal_table(FrameLayout.clip(3)).int().tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]


def test_teacher_forcing_shows_history_to_history_and_the_past_to_noise():
    chunks = causal_table(FrameLayout.teacher_forcing(3, chunk=2)).int()  # frames 0 and 1 together, then 2
    assert chunks[:3, 3:].sum() == 0 and chunks[:3, :3].tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert chunks[3:].tolist() == [[0, 0, 0, 1, 0, 0], [0, 0, 0, 1, 1, 0], [1, 1, 0, 0, 0, 1]]
    assert causal_table(FrameLayout.teacher_forcing(2)).int().tolist() == [
        [1, 0, 0, 0],
        [1, 1, 0, 0],
        [0, 0, 1, 0],
        [1, 0, 0, 1],
    ]


def test_a_window_keeps_sinks_and_the_newest_frames():
    query, key = FrameLayout.clip(2, first=8), FrameLayout((0, 1, EMPTY, 5, 6, 7, 8, 9), (False,) * 8)
    assert window_table(query, key, window=4, sinks=1).int().tolist() == [
        [1, 0, 0, 0, 1, 1, 1, 0],
        [1, 0, 0, 0, 1, 1, 1, 1],
    ]


def test_window_positions_are_absolute_at_first_and_relative_later():
    assert window_positions((0, 1, 2), end=3, window=3, sinks=1).tolist() == [0, 1, 2]
    assert window_positions((0, 97, 98, 99), end=100, window=3, sinks=1).tolist() == [0, 1, 2, 3]
    assert window_positions((EMPTY, 3), end=100, window=3, sinks=1).tolist() == [0, 0]


def test_a_mask_spreads_over_the_tokens_of_a_frame():
    bias = additive_mask(causal_table(FrameLayout.clip(2)), 2, 3, CPU, torch.float32)
    assert (bias == 0).int().tolist() == [[1, 1, 1, 0, 0, 0]] * 2 + [[1] * 6] * 2
    assert torch.isneginf(bias[bias != 0]).all()


def test_block_masks_are_made_once_for_their_model_and_the_oldest_go():
    masks = BlockMasks(capacity=2)
    first = masks.causal(FrameLayout.clip(2), 2, 3, CPU)
    assert masks.causal(FrameLayout.clip(2), 2, 3, CPU) is first
    masks.causal(FrameLayout.clip(3), 2, 3, CPU)
    masks.causal(FrameLayout.clip(4), 2, 3, CPU)
    assert len(masks) == 2 and masks.causal(FrameLayout.clip(2), 2, 3, CPU) is not first
    assert len(copy.deepcopy(masks)) == 0 and len(pickle.loads(pickle.dumps(masks))) == 0


def test_rotary_split_is_wans():
    assert [2 * pairs for pairs in pair_split(128)] == [44, 42, 42]


def test_rotation_turns_interleaved_pairs():
    x = torch.tensor([1.0, 0.0, 1.0, 0.0]).view(1, 1, 4)
    turned = rotate(x, time_table(torch.tensor([2.0]), 4, theta=100.0))
    wanted = [math.cos(2), math.sin(2), math.cos(0.2), math.sin(0.2)]
    torch.testing.assert_close(turned.flatten(), torch.tensor(wanted))
    assert rotate(x.bfloat16(), time_table(torch.tensor([2.0]), 4, theta=100.0)).dtype == torch.bfloat16


def test_scores_depend_on_relative_positions_only_and_tables_are_exact_far_out():
    torch.manual_seed(0)
    q, k = torch.randn(1, 1, 1, 24), torch.randn(1, 1, 1, 24)

    def score(first):
        positions = torch.tensor([first, first + 3.0], dtype=torch.float64)
        table = video_table(positions, (1, 1), 24, 1e4)
        return (rotate(q, table[:1]) * rotate(k, table[1:])).sum()

    torch.testing.assert_close(score(0.0), score(50_000.0), rtol=1e-5, atol=1e-5)


def test_video_tokens_turn_by_row_and_column():
    table = video_table(torch.tensor([0.0]), (2, 3), 12, 1e4)
    pairs_t, pairs_h, _ = pair_split(12)
    angles = torch.view_as_complex(table).angle()
    rows, columns = angles[0, :, pairs_t], angles[0, :, pairs_t + pairs_h]
    torch.testing.assert_close(rows, torch.tensor([0.0, 0, 0, 1, 1, 1]))
    torch.testing.assert_close(columns, torch.tensor([0.0, 1, 2, 0, 1, 2]))


def test_timesteps_are_cosines_then_sines():
    values = sinusoid(torch.tensor([[700.0]]), 4)[0, 0]
    wanted = [math.cos(700), math.cos(7), math.sin(700), math.sin(7)]
    torch.testing.assert_close(values, torch.tensor(wanted), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)]
)
def test_rms_norm_equals_torchs_forward_and_backward(dtype, tolerance):
    torch.manual_seed(0)
    norm = RMSNorm(16, 1e-6).to(dtype)
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(3, 5, 16, dtype=dtype, requires_grad=True)
    grad = torch.randn_like(x)
    found = norm(x)
    wanted = F.rms_norm(x, (16,), norm.weight, 1e-6)
    pairs = [(found, wanted)]
    pairs += zip(
        torch.autograd.grad(found, (x, norm.weight), grad), torch.autograd.grad(wanted, (x, norm.weight), grad)
    )
    for left, right in pairs:
        assert float((left - right).detach().abs().max() / right.detach().abs().max()) < tolerance
    with torch.no_grad():
        torch.testing.assert_close(norm(x), wanted)


def test_rms_norm_passes_gradcheck():
    norm = RMSNorm(6, 1e-6).double()
    x = torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x, w: torch.func.functional_call(norm, {"weight": w}, (x,)), (x, norm.weight)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_equals_a_softmax_written_out(dtype):
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 6, 3, 16) for _ in range(3))
    table = causal_table(FrameLayout.clip(3))
    bias = additive_mask(table, 2, 2, CPU, torch.float32)
    scores = torch.einsum("bqhk,bmhk->bhqm", q, k) / 4 + bias
    wanted = torch.einsum("bhqm,bmhk->bqhk", scores.softmax(-1), v)
    found = attention(q.to(dtype), k.to(dtype), v.to(dtype), bias.to(dtype)).float()
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)
    flex = attention(q, k, v, block_mask(table, 2, 2, CPU))
    torch.testing.assert_close(flex, wanted, rtol=1e-5, atol=1e-5)


def test_frame_attention_stays_inside_the_frame_and_adds_its_bias():
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 3, 4, 2, 8), torch.randn(2, 3, 5, 2, 8), torch.randn(2, 3, 5, 2, 8)
    bias = torch.randn(2, 4, 5)
    found = frame_attention(q, k, v, bias)
    for frame in range(3):
        parts = (x[:, frame].transpose(1, 2) for x in (q, k, v))
        torch.testing.assert_close(found[:, frame], biased_attention(*parts, bias).transpose(1, 2))


def test_a_gate_is_closed_and_its_gain_speeds_it_up():
    gate = Gate(4, gain=10.0)
    x, update = torch.randn(2, 4), torch.randn(2, 4)
    assert torch.equal(gate(x, update), x)
    gate(x, update).sum().backward()
    torch.testing.assert_close(gate.weight.grad, 10 * update.sum(0))
