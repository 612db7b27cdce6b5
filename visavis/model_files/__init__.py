"""Files of a model folder: their list with hashes, and how they get to a machine. No torch."""
