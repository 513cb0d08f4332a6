"""Taking an image out: archives, layouts, directories and registries."""
