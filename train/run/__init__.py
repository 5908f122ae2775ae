"""What one run leaves behind: its folder, checkpoints, log and report."""
