"""What holds for keys, whatever stores them."""
