"""The broker over HTTP: an ASGI application, its place in somebody else's, and the server that `serve` runs."""
