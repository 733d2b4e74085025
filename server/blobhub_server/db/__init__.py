"""The database: engine and transactions, group commit, doorbells, migrations, and what differs between dialects."""
