"""What blobs have in common: content, aliases, limits, events, and how they are locked and deleted."""
