"""What a finished run gives to other tools: TRL, veRL, OpenRLHF, the Hugging Face hub."""
