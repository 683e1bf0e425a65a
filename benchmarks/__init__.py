"""Measurements side by side with PyTorch, JAX and CTranslate2; README.md says how to run them."""
