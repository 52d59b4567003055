"""The reference: cases, sizes and samples, the untouched source on them, and what that proves of itself."""
