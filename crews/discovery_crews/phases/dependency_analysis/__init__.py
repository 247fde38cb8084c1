"""Phase dependency_analysis: who needs whom, on what evidence, and what should move together."""
