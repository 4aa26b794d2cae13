"""Scorers, decoding, the score matrix and the gate."""
