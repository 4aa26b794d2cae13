"""Entries, refs and objects on disk: what was learned, immutable and verifiable."""
