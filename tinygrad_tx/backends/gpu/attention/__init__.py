"""Attention and its gradients for a GPU."""
