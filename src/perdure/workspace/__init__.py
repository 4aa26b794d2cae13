"""The Python API: `Workspace`, with every verb of the command line, a line each."""
