"""What ranks meet by."""

from __future__ import annotations

import torch
from torchft import ProcessGroupGloo, ProcessGroupNCCL

from lepton_worker.quorum import group_type


def test_accelerators_talk_by_nccl_and_processors_by_gloo() -> None:
    assert group_type(torch.device("cuda:1")) is ProcessGroupNCCL
    assert group_type(torch.device("cpu")) is ProcessGroupGloo
