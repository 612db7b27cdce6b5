"""Training of the diffusion transformer: the non-streaming teacher, the streaming student, what they learn from."""
