"""The model of a preparation: signature, cases, request, files, and the messages between processes."""
