"""A whole training step captured as a CUDA graph, and compiled."""
