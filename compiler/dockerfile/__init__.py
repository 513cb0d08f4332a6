"""The Dockerfile language: text to typed instructions, without any I/O."""
