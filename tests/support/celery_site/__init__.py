"""A site with tasks, whose worker's main process queries when it imports them."""
