"""What a blob type is: the contract, the registry that finds types, and the test suite for any type."""
