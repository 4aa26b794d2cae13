"""Merge: one adapter of bounded rank in the place of many."""
