"""Ways to ask a model: protocol (base), transformers in this process (local), fake (scripted)."""
