"""What the commands have in common, and the commands of rooms that have several."""
