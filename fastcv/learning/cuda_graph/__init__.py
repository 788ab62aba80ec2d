"""Execute training steps faster: compiled, and replayed from a captured CUDA graph."""
