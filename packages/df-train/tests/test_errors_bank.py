from __future__ import annotations

import pytest
import torch

from df_models.errors import UserError
from df_train.errors_bank import ErrorBank


def errors(first: float, clips: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Errors whose value tells clip and frame: first + 10 * clip + frame."""
    value = first + 10.0 * torch.arange(clips)[:, None] + torch.arange(3)[None]
    return value[:, :, None, None, None].expand(-1, -1, 16, 2, 2), value[:, :, None, None].expand(-1, -1, 4, 70)


SIGMA = torch.tensor([[0.0, 0.41, 0.9], [0.9, 0.8, 0.3]])


def test_records_the_frame_half_way_through_denoising_of_each_clip():
    bank = ErrorBank(4)
    bank.record(*errors(100.0), SIGMA)
    assert bank.filled == 2
    video, structure = bank.draw(torch.tensor([[0, 1]]))
    assert video[0, :, 0, 0, 0].tolist() == [101.0, 112.0]
    assert structure[0, :, 0, 0].tolist() == [101.0, 112.0]


def test_overwrites_the_oldest_and_restores_exactly():
    bank = ErrorBank(3)
    bank.record(*errors(100.0), SIGMA)
    bank.record(*errors(200.0), SIGMA)
    assert bank.filled == 3
    other = ErrorBank(3)
    other.load_state_dict({name: value.clone() for name, value in bank.state_dict().items()}, torch.device("cpu"))
    for one in (bank, other):
        one.record(*errors(300.0, clips=1), SIGMA[:1])
    choice = torch.arange(6)[None]
    assert torch.equal(bank.draw(choice)[0], other.draw(choice)[0])
    assert sorted(set(bank.draw(choice)[0].flatten().tolist())) == [201.0, 212.0, 301.0]


def test_another_capacity_is_refused():
    bank = ErrorBank(3)
    bank.record(*errors(0.0), SIGMA)
    with pytest.raises(UserError, match="error_bank"):
        ErrorBank(4).load_state_dict(bank.state_dict(), torch.device("cpu"))
