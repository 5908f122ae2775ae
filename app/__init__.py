"""The room of who uses a finished checkpoint: questions to photographs, and searches among them."""
