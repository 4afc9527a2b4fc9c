"""What others see of the operator: the resource's status and schema, its settings, its times."""
