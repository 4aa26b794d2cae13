"""Edit facts into the model, carry them over a learn, verify and revert them."""
