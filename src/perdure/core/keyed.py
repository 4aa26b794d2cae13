"""Randomness by key, never from a global stream.

Two draws with different keys are independent, and a draw with one key is the same in every host, process and resumed run;
so adding a method cannot change what another method draws.
"""

import hashlib

import numpy as np


def seed_of(*key: object) -> int:
    """Return a 63-bit seed that depends on every part of `key` (parts are compared by their `repr`)."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def keyed(*key: object) -> np.random.Generator:
    """Return a fresh generator for `key`, for example `keyed(seed, task, "replay", update)`."""
    return np.random.default_rng(seed_of(*key))
