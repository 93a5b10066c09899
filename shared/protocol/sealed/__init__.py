"""What goes with ciphertexts: keys, receipts, tags, admissions."""
