"""What is prepared: signature, cases, request, files, and the messages between processes."""
