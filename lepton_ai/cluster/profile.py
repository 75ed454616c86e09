"""Which cluster a client talks to: its address and a key, from arguments, environment or file."""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import grpc

from lepton_ai.errors import InvalidArgumentError, NotFoundError

__all__ = ["LOCK_FILE", "Profile", "home_folder"]

# Held, with its process id inside, by the supervisor of a local cluster.
LOCK_FILE = "local.lock"

_FILE = "client.json"
_HELP = "run 'lepton up', or set LEPTON_ADDRESS and LEPTON_API_KEY"


@dataclass(frozen=True)
class Profile:
    """A cluster, as far as a client must know it.

    Attributes:
        address: ``host:port`` of a gateway.
        api_key: A key of that cluster.
        authority: Who signed the gateway's certificate (PEM); empty where it speaks plain text,
            which it does on loopback only.
    """

    address: str
    api_key: str
    authority: str = ""

    @property
    def channel_credentials(self) -> grpc.ChannelCredentials | None:
        """How to reach the gateway by gRPC; None for plain text."""
        return grpc.ssl_channel_credentials(self.authority.encode()) if self.authority else None

    @property
    def tls(self) -> ssl.SSLContext | None:
        """How to reach the gateway by HTTP; None for plain text."""
        return ssl.create_default_context(cadata=self.authority) if self.authority else None

    @classmethod
    def find(
        cls,
        address: str | None = None,
        api_key: str | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> Profile:
        """The profile to use: what is given, else the environment, else ``client.json``.

        Raises:
            NotFoundError: Nowhere is it said which cluster to use.
            InvalidArgumentError: The address is not ``host:port``, or a file is damaged.
        """
        authority = _authority(environment)
        address = address or environment.get("LEPTON_ADDRESS")
        api_key = api_key or environment.get("LEPTON_API_KEY")
        if not (address and api_key):
            stored = cls.read(home_folder(environment))
            # A stored key belongs to the stored address; it is never sent to another.
            if address and address != stored.address:
                raise NotFoundError(f"there is no key for {address}", hint="set LEPTON_API_KEY")
            address, api_key = stored.address, api_key or stored.api_key
            authority = authority or stored.authority
        return cls(_checked(address), api_key, authority)

    @classmethod
    def read(cls, home: Path) -> Profile:
        """The profile that `write` left in `home`.

        Raises:
            NotFoundError: There is none.
            InvalidArgumentError: It is damaged.
        """
        path = home / _FILE
        try:
            form = json.loads(path.read_text())
            authority = str(form.get("authority", ""))
            return cls(_checked(form["address"]), str(form["api_key"]), authority)
        except FileNotFoundError:
            raise NotFoundError("no cluster is known here", hint=_HELP) from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InvalidArgumentError(f"{path} is not a client file", hint=_HELP) from None

    def to_json(self) -> str:
        """What `read` reads."""
        return json.dumps(asdict(self))

    def write(self, home: Path) -> None:
        """Keep it in `home`, readable by its owner only."""
        home.mkdir(parents=True, exist_ok=True)
        unfinished = home / f".{_FILE}.{os.getpid()}"
        unfinished.touch(mode=0o600)
        unfinished.write_text(self.to_json())
        unfinished.replace(home / _FILE)


def home_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Where a person's clusters and keys are kept: ``LEPTON_HOME``, or ``~/.lepton``."""
    given = environment.get("LEPTON_HOME")
    return Path(given) if given else Path.home() / ".lepton"


def _authority(environment: Mapping[str, str]) -> str:
    path = environment.get("LEPTON_AUTHORITY")
    if not path:
        return ""
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError):
        raise InvalidArgumentError(
            f"LEPTON_AUTHORITY: {path} cannot be read", hint="name the authority's PEM file"
        ) from None


def _checked(address: str) -> str:
    host, colon, port = address.rpartition(":")
    if host and colon and port.isdecimal() and 0 < int(port) < 65536:
        return address
    raise InvalidArgumentError(f"{address!r} is not an address", hint="give host:port")
