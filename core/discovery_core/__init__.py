"""What operator, APIs and crews share: resource models, states, wire models and the store."""
