"""Signs of reward hacking in the text of samples; no model is asked."""
