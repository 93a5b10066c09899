"""What an observer could do; each puts what it saw into evidence."""
