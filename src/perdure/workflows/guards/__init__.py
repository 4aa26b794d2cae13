"""Guards: abilities that a workspace scores and never learns."""
