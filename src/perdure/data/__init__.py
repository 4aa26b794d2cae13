"""Task files: read, detect the format, turn into rows, split, fingerprint."""
