"""The stream as bytes, sans-I/O: cut into lines, filter, take up again. Time and chance are arguments.

The server filters with it, the client decodes and reconnects with it. What an event is stands in types.
"""
