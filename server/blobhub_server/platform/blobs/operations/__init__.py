"""Operations: begun in calls, run beside them, each ended once."""
