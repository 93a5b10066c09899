"""What `calyx doctor` looks at."""
