"""What stands behind a failed check: each module takes a result and returns its diagnoses."""
