"""What training has cost the records of a device."""
