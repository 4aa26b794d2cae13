"""Methods that tell the task of a request."""
