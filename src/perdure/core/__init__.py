"""The shared types of all rooms: rows, seams, step, recipe, keyed randomness, errors."""
