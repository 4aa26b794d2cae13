"""The replay store: rows and their columns, manifests, admission, service."""
