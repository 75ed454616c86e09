"""What a storage node can be told."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr

from lepton_runtime.settings import RuntimeSettings
from lepton_storage.shared import HOLDER

__all__ = ["StorageSettings"]


class StorageSettings(RuntimeSettings):
    """Settings of a storage node, in addition to those that all services share.

    Chunks lie below `data_dir`. Nodes with the same ``zone`` label are expected to fail together.
    """

    reserve_bytes: int = Field(
        256 * 1024 * 1024, ge=0, description="Free disk space that is never used."
    )
    packed_bytes: int = Field(
        64 * 1024,
        ge=0,
        le=1024 * 1024,
        description="Chunks up to this long share files: small objects are stored faster.",
    )
    max_object_bytes: int = Field(64 * 1024**3, ge=1, description="Larger objects are refused.")
    master_key: SecretStr | None = Field(
        None, description="32 bytes in base64: encrypts chunks. Older ones may follow the newest."
    )
    master_key_file: Path | None = Field(None, description="A file that holds the same.")
    object_store_url: str = Field(
        "",
        description="Keep chunks in this object store (s3://bucket/folder, gs://…, az://…) "
        "and not on disk; the same on every storage node.",
    )
    heal_grace_s: float = Field(
        30.0, ge=0, description="How long a node may be gone before its chunks are copied again."
    )
    garbage_age_s: float = Field(
        3600.0, ge=0, description="Chunks that no object has are removed when they are this old."
    )
    unnamed_age_s: float = Field(
        24 * 3600.0,
        ge=0,
        description="Objects that nothing names are forgotten when they are this old.",
    )
    heal_interval_s: float = Field(4.0, gt=0, description="Pause between two looks at all objects.")
    scrub_bytes_per_s: int = Field(
        16 * 1024 * 1024, ge=1, description="How fast idle copies are read to find decay."
    )
    scrub_interval_s: float = Field(
        24 * 3600.0, gt=0, description="Pause between two readings of all copies."
    )

    @property
    def holder(self) -> str:
        """What manifests say has the chunks that this node writes."""
        return HOLDER if self.object_store_url else self.node_id

    @property
    def master_keys(self) -> str:
        """The master keys in base64, the newest first; empty where chunks are not encrypted."""
        if self.master_key is not None:
            return self.master_key.get_secret_value()
        return self.master_key_file.read_text() if self.master_key_file else ""
