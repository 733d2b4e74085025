"""The event log: encoding events, reading the log and watching it."""
