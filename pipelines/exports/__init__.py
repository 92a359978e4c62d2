"""What benchmark servers and annotation tools read, made from predictions alone, and read back."""
