"""The replay store: rows and their columns, admission, and draws."""
