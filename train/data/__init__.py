"""From the stream to packed batches: pairs, masks, negatives, texts."""
