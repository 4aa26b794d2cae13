"""What one does with a causal language model in plain torch: batches, forward, head, prefix cache, decoding, layers, layout."""
