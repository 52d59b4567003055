"""The causes of failed checks: each module takes a result and returns its diagnoses."""
