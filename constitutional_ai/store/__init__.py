"""What lies on disk while a command runs: run folders, rows, checkpoints, and how they last."""
