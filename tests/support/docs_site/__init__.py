"""The site that the documentation's blocks run in, on a private server."""
