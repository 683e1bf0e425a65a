"""Row programs and reductions along rows."""
