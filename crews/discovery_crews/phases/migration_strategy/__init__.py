"""Phase migration_strategy: 6R proposals, technical debt, readiness gaps, and exports."""
