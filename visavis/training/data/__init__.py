"""Synthetic people who talk: parametric bodies, CC0 skins and hair, rendered off-screen."""
