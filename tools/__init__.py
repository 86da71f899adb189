"""What the Makefile calls, as ``python -m tools.NAME`` from the repository's root."""
