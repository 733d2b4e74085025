"""The scheduler slice: blobs whose schedules invoke definitions when their time comes."""
