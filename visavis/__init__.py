"""visavis streams a talking face: speech goes in, video frames come back while the speech is still arriving."""

__version__ = "0.1.0"
