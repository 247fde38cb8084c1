"""One CrewAI crew per phase, and the runner that takes an attempt from claim to result."""
