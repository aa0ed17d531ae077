"""Ways to ask a model: a protocol (base), transformers in this process (local), a fake (scripted)."""
