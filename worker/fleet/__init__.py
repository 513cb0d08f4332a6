"""One build over many machines: who executes which action where, and the workers that do."""
