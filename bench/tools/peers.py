"""What a Python user would pick instead, each in an environment of its own below `.make/peers`."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tools import cnn
from tools.ours import free_port
from tools.target import Target, Way, json_array, json_scores, oip_ways

ENVIRONMENTS = Path(__file__).parents[2] / ".make" / "peers"
SERVERS = Path(__file__).parent / "servers"
_INSTALL_S = 900
_START_S = 150.0
_ENGINE = ("onnxruntime", "numpy")

Command = tuple[list[str], tuple[Way, ...]]


class MissingPeerError(Exception):
    """A peer cannot be measured here; says why."""


@dataclass(frozen=True)
class Peer:
    """A server of somebody else's.

    Attributes:
        name: For the table.
        packages: What to install.
        command: Its arguments, given the interpreter and a folder, and how it is asked then.
        environment: Variables it is started with.
    """

    name: str
    packages: tuple[str, ...]
    command: Callable[[Path, Path], Command]
    environment: tuple[tuple[str, str], ...] = ()

    @contextmanager
    def running(self, model: Path) -> Iterator[Target]:
        """The peer with the model.

        Raises:
            MissingPeerError: It cannot be installed or does not start.
        """
        python = self._installed()
        with tempfile.TemporaryDirectory() as folder:
            arguments, ways = self.command(python, Path(folder))
            log = (Path(folder) / "log").open("wb+")
            child = subprocess.Popen(
                arguments,
                env=os.environ
                | {"BENCH_MODEL": str(model), "BENCH_FOLDER": folder}
                | dict(self.environment),
                cwd=folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            try:
                yield self._answering(Target(self.name, (child.pid,), ways), Path(log.name))
            finally:
                log.close()
                _end(child, folder)

    def _answering(self, target: Target, log: Path) -> Target:
        try:
            target.wait(_START_S)
        except RuntimeError as error:
            last = log.read_text(errors="replace").strip().splitlines()[-1:]
            raise MissingPeerError(f"it does not answer: {error} {last}") from None
        return target

    def _installed(self) -> Path:
        folder = ENVIRONMENTS / self.name.split()[0].lower()
        python, marker = folder / "bin" / "python", folder / "installed"
        if not marker.exists():
            print(f"installing {self.name} into {folder} ...", file=sys.stderr)
            venv.create(folder, with_pip=True)
            install = [str(python), "-m", "pip", "install", "--quiet", *self.packages, *_ENGINE]
            try:
                subprocess.run(install, check=True, timeout=_INSTALL_S, capture_output=True)
            except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
                raise MissingPeerError(f"it cannot be installed: {error}") from None
            marker.touch()
        return python


def _end(child: subprocess.Popen[bytes], folder: str) -> None:
    """It and all that it started, wherever that went: they share a variable."""
    child.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(10)
    wanted = f"BENCH_FOLDER={folder}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if wanted in (process / "environ").read_bytes().split(b"\0"):
                os.kill(int(process.name), signal.SIGKILL)
    child.wait()


def _mosec(python: Path, folder: Path) -> Command:
    port = free_port()
    server = str(SERVERS / "mosec_server.py")
    arguments = [str(python), server, "--address", "127.0.0.1", "--port", str(port)]
    return arguments, _bare_ways(port)


def _ray(python: Path, folder: Path) -> Command:
    port = free_port()
    return [str(python), str(SERVERS / "ray_server.py"), str(port)], _bare_ways(port)


def _bare_ways(port: int) -> tuple[Way, ...]:
    url = f"http://127.0.0.1:{port}"
    kind = {"content-type": "application/json"}
    return (
        Way("binary", f"{url}/bytes", cnn.raw_request()),
        Way("JSON", f"{url}/json", cnn.json_request(), kind, json_scores),
    )


def _pytriton(python: Path, folder: Path) -> Command:
    http, grpc, metrics = free_port(), free_port(), free_port()
    arguments = [str(python), str(SERVERS / "pytriton_server.py"), *map(str, (http, grpc, metrics))]
    return arguments, oip_ways(f"127.0.0.1:{http}", f"127.0.0.1:{grpc}")


def _mlserver(python: Path, folder: Path) -> Command:
    http, grpc, metrics = free_port(), free_port(), free_port()
    settings = {
        "host": "127.0.0.1",
        "http_port": http,
        "grpc_port": grpc,
        "metrics_port": metrics,
        "parallel_workers": 0,
        "debug": False,
    }
    model = {
        "name": cnn.MODEL,
        "implementation": "mlserver_model.Cnn",
        "max_batch_size": 64,
        "max_batch_time": 0.002,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))
    shutil.copy(SERVERS / "mlserver_model.py", folder)
    arguments = [str(python.parent / "mlserver"), "start", str(folder)]
    ways = oip_ways(f"127.0.0.1:{http}", f"127.0.0.1:{grpc}")
    return arguments, tuple(way for way in ways if way.kind != "binary")


def _kserve(python: Path, folder: Path) -> Command:
    http, grpc, quiet = free_port(), free_port(), folder / "logging.json"
    quiet.write_text(json.dumps({"version": 1}))
    arguments = [
        *(str(python), str(SERVERS / "kserve_server.py"), f"--http_port={http}"),
        *(f"--grpc_port={grpc}", "--workers=2", "--enable_latency_logging=false"),
        f"--log_config_file={quiet}",
    ]
    return arguments, oip_ways(f"127.0.0.1:{http}", f"127.0.0.1:{grpc}")


def _bentoml(python: Path, folder: Path) -> Command:
    port = free_port()
    arguments = [
        *(str(python.parent / "bentoml"), "serve", "bentoml_service:Cnn"),
        *(f"--working-dir={SERVERS}", "--host=127.0.0.1", f"--port={port}"),
    ]
    url, kind = f"http://127.0.0.1:{port}/array", {"content-type": "application/json"}
    return arguments, (Way("JSON", url, cnn.array_request(), kind, json_array),)


def _litserve(python: Path, folder: Path) -> Command:
    port = free_port()
    arguments = [str(python), str(SERVERS / "litserve_server.py"), str(port)]
    return arguments, tuple(way for way in _bare_ways(port) if way.kind == "JSON")


PEERS = (
    Peer("Mosec", ("mosec",), _mosec),
    Peer(
        "Ray behind HAProxy",
        ("ray[serve]",),
        _ray,
        environment=(("RAY_SERVE_ENABLE_HA_PROXY", "1"), ("RAY_USAGE_STATS_ENABLED", "0")),
    ),
    Peer("pytriton", ("nvidia-pytriton",), _pytriton),
    Peer("MLServer", ("mlserver",), _mlserver),
    Peer("KServe", ("kserve",), _kserve),
    Peer(
        "BentoML",
        ("bentoml", "uvloop", "httptools"),
        _bentoml,
        environment=(
            ("BENTOML_HOME", str(ENVIRONMENTS / "bentoml" / "home")),
            ("BENTOML_DO_NOT_TRACK", "true"),
            ("OTEL_SDK_DISABLED", "true"),
        ),
    ),
    Peer("LitServe", ("litserve",), _litserve),
)
