"""The platform on the wire: proto ↔ values, one module per noun."""
