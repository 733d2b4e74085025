"""The engine that fires schedules: it sleeps until one is due, and takes those that are, some to a transaction."""
