"""What a user asks of a Hamiltonian: tasks, files, figures and the interactive page."""
