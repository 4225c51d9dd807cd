"""What chat services are told: one digest for all of them (`digest`), one small module for each service's form."""
