"""What a call writes: a change in a transaction, its remembered answer, its entry in the audit log."""
