"""Measurements that a person runs: each is a command that ends with one line of JSON."""
