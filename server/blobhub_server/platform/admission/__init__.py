"""Admission: who calls, what the call is about, and whether it is allowed."""
