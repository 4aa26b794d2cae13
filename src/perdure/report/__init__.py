"""Pages built from records; imports no torch."""
