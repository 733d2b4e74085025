"""The embedded runtime: drives the interpreter in this process, journals what it decides, and tells watchers."""
