"""Seeds that depend on what they are for, so that no generator's state has to be kept."""

import hashlib
import json


def derive_seed(*parts: object) -> int:
    """A seed in [0, 2^63) that depends on every part, such as (seed, stage, id)."""
    text = json.dumps(parts, ensure_ascii=False, default=str)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1
