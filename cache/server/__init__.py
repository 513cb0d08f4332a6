"""The cache server: the Remote Execution API's storage services, and the team's own, over one store."""
