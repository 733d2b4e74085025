"""What a blob type is: the contract, the registry that finds them, and the suite any of them can be held to."""
