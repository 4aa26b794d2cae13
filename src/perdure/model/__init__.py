"""Causal language models in plain torch: batches, forward, head, prefix cache, decoding, layers, layout."""
