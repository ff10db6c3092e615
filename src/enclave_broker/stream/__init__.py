"""The stream as bytes, sans-I/O: encode, decode, filter and take up again."""
