"""BuildKit's rules, under the names that users know them by; a function each."""
