"""How calls arrive: one pipeline around every handler, errors, validation, paging, health, reflection, draining."""
