"""What several parties use; imports none of them."""
