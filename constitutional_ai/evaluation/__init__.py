"""Evidence: what a model answers to held-out prompts, who reads the answers, and how sure it is."""
