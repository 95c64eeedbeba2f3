"""The app that the documentation's examples are about."""
