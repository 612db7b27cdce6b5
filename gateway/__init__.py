"""The gateway: the public API, the pipeline of the three stages, and where sessions go. Imports no torch."""
