"""A plan as text for people and programs."""
