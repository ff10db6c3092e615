"""Where logs are kept: one interface, one module for each store behind it."""
