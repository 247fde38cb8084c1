"""Routes for people and their tools."""
