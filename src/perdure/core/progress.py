"""The callback by which long work reports its progress."""

from collections.abc import Callable

Tick = Callable[[str, int, int], None]  # (description, done, total)
