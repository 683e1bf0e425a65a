"""Programs: kernels' calls run by a team of threads."""
