"""Checkpoints, and points in the plane that three of them span. Knows nothing of scores, figures or pages."""
