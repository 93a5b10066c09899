"""What several commands ask of their user."""
