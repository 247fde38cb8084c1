"""Phase field_mapping: a crew judges a shortlist per column, a person approves."""
