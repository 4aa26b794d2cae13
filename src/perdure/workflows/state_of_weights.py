"""Which state of methods is about trained weights, and so belongs to one adapter alone."""

from collections.abc import Iterable


def methods_of(names: Iterable[str]) -> list[str]:
    """Return the methods of a stored state, each once, sorted.

    Args:
        names: Names of its tensors, `<method>/<key>`.
    """
    return sorted({name.partition("/")[0] for name in names})


def methods_about_weights(names: Iterable[str]) -> list[str]:
    """Return the methods whose stored state is about trained parameters: Fisher information, anchors, a chain of factors."""
    return methods_of(name for name in names if _about_a_parameter(name.partition("/")[2]))


def _about_a_parameter(key: str) -> bool:
    """Return whether a key of a state belongs to a parameter: `<what>.<parameter>`."""
    return "." in key and key.partition(".")[0].isidentifier()
