"""The way in: who is calling, what about, and may they."""
