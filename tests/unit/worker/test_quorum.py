"""What ranks meet by, and how long they wait for each other."""

from __future__ import annotations

import torch
from torchft import ProcessGroupGloo, ProcessGroupNCCL

from lepton_worker.quorum import group_type, patience_s


def test_accelerators_talk_by_nccl_and_processors_by_gloo() -> None:
    assert group_type(torch.device("cuda:1")) is ProcessGroupNCCL
    assert group_type(torch.device("cpu")) is ProcessGroupGloo


def test_ranks_that_are_slow_rather_than_hung_get_more_time() -> None:
    waits = [patience_s(failed) for failed in range(7)]
    assert waits == [5, 10, 20, 40, 60, 60, 60]
