"""What a scheduler can be told."""

from __future__ import annotations

from pydantic import Field

from lepton_runtime.settings import RuntimeSettings

__all__ = ["SchedulerSettings"]


class SchedulerSettings(RuntimeSettings):
    """Settings of a scheduler."""

    election_ttl_s: float = Field(
        3.0, ge=2.0, description="Seconds without a sign of life after which another leads."
    )
