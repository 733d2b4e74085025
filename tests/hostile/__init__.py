"""Hundreds of hostile callers' inputs, each with a name: what they do, and who does it to a server."""
