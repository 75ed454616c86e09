"""What ranks meet by."""

from __future__ import annotations

import pytest
import torch
from torchft import ProcessGroupGloo, ProcessGroupNCCL

from lepton_worker.fellows import Fellows
from lepton_worker.quorum import Part, group_type


def test_accelerators_talk_by_nccl_and_processors_by_gloo() -> None:
    assert group_type(torch.device("cuda:1")) is ProcessGroupNCCL
    assert group_type(torch.device("cpu")) is ProcessGroupGloo


class Process(Fellows):
    """One of several of a rank, which is not there otherwise."""

    def __init__(self, index: int, count: int) -> None:
        self.index = index
        self.count = count


@pytest.mark.parametrize("rows", [1, 5, 64])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_each_row_of_a_batch_falls_to_one_process_of_one_rank(rows: int, count: int) -> None:
    shares = [
        Part(0, rank, 2).rows(rows, Process(index, count))
        for rank in range(2)
        for index in range(count)
    ]
    assert [row for share in shares for row in share] == list(range(rows))


def test_a_rank_that_takes_the_state_of_a_peer_has_no_rows() -> None:
    assert not Part(0, None, 2).rows(64, Fellows())
