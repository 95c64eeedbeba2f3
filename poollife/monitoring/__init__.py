"""What is out, and who holds it."""
