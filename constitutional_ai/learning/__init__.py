"""Training: supervised finetuning, the reward model, and PPO, over any transformers causal LM."""
