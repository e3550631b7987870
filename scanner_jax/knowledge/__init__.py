"""Commands that make knowledge; the only room that may import torch, and only where a subcommand needs it."""
