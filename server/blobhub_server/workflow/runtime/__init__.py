"""The embedded runtime: drives the interpreter, journals what it decides, and tells watchers."""
