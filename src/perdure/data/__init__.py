"""Task data: read files, detect their format, convert records to rows, split them into parts, and fingerprint them."""
