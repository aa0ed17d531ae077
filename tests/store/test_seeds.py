"""Seeds."""

import hashlib

from constitutional_ai.store.seeds import derive_seed


def test_seeds_depend_on_every_part_and_fit_63_bits() -> None:
    all_parts = [(0,), (1,), (0, "a"), ("0",), (0, "a", "b"), (0, "ab")]
    seeds = {derive_seed(*parts) for parts in all_parts}
    assert len(seeds) == 6
    assert all(0 <= seed < 2**63 for seed in seeds)
    digest = hashlib.sha256(b'[0, "revise", "x"]').hexdigest()  # the same in every process
    assert derive_seed(0, "revise", "x") == int(digest[:16], 16) // 2
