"""Footage of real people: prepared as the paper says (section A.2), into the shards that training reads."""
