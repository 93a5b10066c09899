"""What an audited simulation adds; a real device adds nothing."""
