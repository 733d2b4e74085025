"""HTTP requests that this server makes. No other package makes any."""
