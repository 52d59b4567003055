"""The process boundary: job in, reply out, as JSON and files by path, with time and memory limits."""
