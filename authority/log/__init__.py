"""What the authority decided: events in a hash chain, and heads that it signs for others."""
