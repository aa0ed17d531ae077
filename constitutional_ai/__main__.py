"""``python -m constitutional_ai`` is ``cai``."""

from constitutional_ai.cli import start

if __name__ == "__main__":
    start()
