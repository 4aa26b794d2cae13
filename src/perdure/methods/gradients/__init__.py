"""Methods that change the gradient of an update."""
