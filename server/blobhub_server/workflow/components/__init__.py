"""The components that workflows are built from, and the contract they fulfil."""
