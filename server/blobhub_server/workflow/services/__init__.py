"""The workflow slice on the wire: proto ↔ values, one module per noun."""
