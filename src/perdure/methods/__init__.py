"""One file per idea against forgetting, each with the registry line that names it."""
