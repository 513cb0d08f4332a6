"""Rules of our own, on with `--strict` or where a file asks for one; a file each."""
