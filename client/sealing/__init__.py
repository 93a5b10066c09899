"""What leaves a client of a sealed run: packed, tagged and encrypted."""
