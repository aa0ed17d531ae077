"""The command ``cai``: ``main.py`` puts it together, and each other module is a command of it."""

import signal
import sys


def start() -> None:
    """Entry point of ``cai`` and of ``python -m constitutional_ai``."""
    try:
        from constitutional_ai.cli.main import app

        app()
    except KeyboardInterrupt:  # while the command was still being imported
        print("cai: interrupted; run the same command again to continue", file=sys.stderr)
        sys.exit(130)
    finally:  # Ctrl-C again, while Python takes itself down, would change the exit code
        signal.signal(signal.SIGINT, signal.SIG_IGN)
