"""The command `lepton`."""

from __future__ import annotations

import os
import sys

__all__ = ["main"]


def main() -> None:
    """Run the command; an error is one line on standard error and exit code 1."""
    from lepton_ai.errors import LeptonError

    try:
        from lepton_ai.cli.commands import app

        app()
    except LeptonError as error:
        sys.stderr.write(f"lepton: {error}\n")
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
