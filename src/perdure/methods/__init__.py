"""The methods against forgetting: one folder per family, one file per method, and the registry that finds them."""
