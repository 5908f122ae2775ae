"""Pre-training in alternating modes, fine-tuning of every task, their checkpoints and reports."""
