"""What a blob type is: the contract it fulfils, the registry that finds it, and the suite that any of them can be held to."""
