"""The app of the ticket desk."""
