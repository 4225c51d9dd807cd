"""Types to text: one module for each form in which people or machines meet a run. Pure."""
