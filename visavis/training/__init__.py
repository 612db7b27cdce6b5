"""Training: data, and later the autoencoders and the motion models."""
