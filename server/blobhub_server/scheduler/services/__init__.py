"""The services of schedulers on the wire."""
