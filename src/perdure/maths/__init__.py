"""Pure functions on tensors and arrays: metrics, statistics, divergences, low-rank algebra."""
