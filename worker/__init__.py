"""One action in, one result out."""
