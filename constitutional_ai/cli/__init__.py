"""The commands of ``cai`` that are groups: one module each, its heavy imports inside functions."""
