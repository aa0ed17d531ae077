"""``python -m constitutional_ai`` is ``cai``."""

from constitutional_ai.cli import main

if __name__ == "__main__":
    main()
