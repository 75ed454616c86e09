"""What every service can be told: by ``LEPTON_…`` variables, or a TOML file (`LEPTON_CONFIG`)."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Literal, Self

import grpc
from pydantic import Field, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from lepton_ai.rpc import TlsFiles

__all__ = ["RuntimeSettings", "is_loopback"]


class RuntimeSettings(BaseSettings):
    """Settings that all services share. The environment wins over the file."""

    model_config = SettingsConfigDict(
        env_prefix="LEPTON_", env_nested_delimiter="__", frozen=True, extra="ignore"
    )

    node_id: str = Field(description="Unique in the cluster and stable across restarts.")
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(0, ge=0, le=65535, description="Port of the gRPC server; 0 for a free one.")
    advertise_host: str = Field("", description="How others reach this node; default: its host.")
    etcd_endpoints: tuple[str, ...] = Field(("127.0.0.1:2379",), description="host:port of etcd.")
    nats_servers: tuple[str, ...] = Field(
        ("nats://127.0.0.1:4222",), description="URLs of NATS servers."
    )
    data_dir: Path = Field(description="Where this node keeps what it must not lose.")
    keys_dir: Path = Field(description="Folder with jwks.json and service.token.")
    tls_certificate: Path | None = Field(None, description="PEM; with key and authority: TLS.")
    tls_key: Path | None = None
    tls_authority: Path | None = None
    lease_ttl_s: float = Field(
        3.0, ge=2.0, description="Seconds of silence after which this node counts as lost."
    )
    metrics_port: int | None = Field(None, description="Port for Prometheus; none by default.")
    log_format: Literal["json", "console"] = "json"
    labels: dict[str, str] = Field(default_factory=dict, description="Facts for placement.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then the environment, then the file."""
        file = TomlConfigSettingsSource(settings_cls, os.environ.get("LEPTON_CONFIG"))
        return init_settings, env_settings, file

    @model_validator(mode="after")
    def _never_open_to_the_network(self) -> Self:
        given = [self.tls_certificate, self.tls_key, self.tls_authority]
        if any(given) and not all(given):
            raise ValueError("tls_certificate, tls_key and tls_authority go together")
        if not is_loopback(self.host) and not all(given):
            raise ValueError(
                f"refusing to listen on {self.host} without TLS: set LEPTON_TLS_CERTIFICATE, "
                "LEPTON_TLS_KEY and LEPTON_TLS_AUTHORITY, or listen on 127.0.0.1"
            )
        return self

    @property
    def reachable_host(self) -> str:
        """The host that others are told."""
        if self.advertise_host:
            return self.advertise_host
        return self.host if is_loopback(self.host) else self.node_id

    @property
    def tls(self) -> TlsFiles | None:
        """Files of mutual TLS, or None on loopback."""
        if not (self.tls_authority and self.tls_certificate and self.tls_key):
            return None
        return TlsFiles(self.tls_authority, self.tls_certificate, self.tls_key)

    @property
    def channel_credentials(self) -> grpc.ChannelCredentials | None:
        """What this service shows to others when it calls them, or None on loopback."""
        return self.tls.channel_credentials() if self.tls else None

    @property
    def jwks(self) -> str:
        """The public keys that tokens are checked with."""
        return (self.keys_dir / "jwks.json").read_text()

    @property
    def service_token(self) -> str:
        """This cluster's own key."""
        return (self.keys_dir / "service.token").read_text().strip()


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
