"""What a call leaves behind: a change's transaction, its remembered answer, its entry in the audit log."""
