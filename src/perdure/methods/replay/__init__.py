"""Methods that train on rows of memory, or choose which rows memory holds."""
