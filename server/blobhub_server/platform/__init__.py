"""What every blob has: organizations, revisions, content, keys, access."""
