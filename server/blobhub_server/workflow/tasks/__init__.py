"""Tasks of workers: how they come to queues, to workers, and to an end."""
