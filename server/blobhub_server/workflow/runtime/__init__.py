"""What runs executions: a contract, and the runtimes that fulfil it."""
