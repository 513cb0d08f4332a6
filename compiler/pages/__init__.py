"""Pages: what the cache server shows people in a browser."""
