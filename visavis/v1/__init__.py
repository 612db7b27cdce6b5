"""Generated from protos/visavis/v1 by `make protos`: never edited by hand."""
