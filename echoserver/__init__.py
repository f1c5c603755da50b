"""A TCP server that sends every byte back in upper case, and its client."""

__version__ = "1.0.0"
