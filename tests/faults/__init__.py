"""Proofs that nothing is lost, done twice or stuck when parts of the system fail."""
