"""HTTP: requests that go out."""
