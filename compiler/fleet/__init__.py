"""The client's side of a fleet: a build's commands run on the workers of its team."""
