"""Artefacts: bytes by their digest, stored once per tenant, in pieces.

Here: storing, reading, referring and collecting them, and uploads. Not here: what they mean.
"""
