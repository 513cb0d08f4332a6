"""Text in; graph, plan and image out; and the command line that puts everything together."""
