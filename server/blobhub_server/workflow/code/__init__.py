"""Running users' scripts, confined."""
