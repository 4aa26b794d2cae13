"""How work that takes time tells how far it is."""

from collections.abc import Callable

Tick = Callable[[str, int, int], None]  # (what, done, of how many)
