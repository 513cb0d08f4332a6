"""What a build says while it runs: the events, and the views that show them."""
