"""The nouns of the contract, a module each: `noun` has its commands."""
