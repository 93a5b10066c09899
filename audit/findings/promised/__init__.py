"""What follows from configuration, ledgers and logs."""
