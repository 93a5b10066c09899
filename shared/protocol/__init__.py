"""What the parties say to each other, as Flower messages, and how it is read back safely."""
