"""What users call: communicators, their methods and requests."""
