"""The vocabulary: rows, seams, step, recipe, keyed randomness, errors."""
