"""The client of a cache server: ours in full, any other that speaks the Remote Execution API as far as it goes."""
