"""What a network is built of: embeddings, the shared block and its attention, heads."""
